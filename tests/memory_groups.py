"""Memory groups of the kernel (cgroup v1 or v2) with a limit, and processes that fill them."""

import contextlib
import os
import pathlib
import signal
import subprocess

from attackers import Hog, group_available
from harness import wait_until

V1_ROOT = pathlib.Path("/sys/fs/cgroup/memory")
V2_ROOT = pathlib.Path("/sys/fs/cgroup")


def own_group():
    """The folder of this process' memory group, and whether it is version 2."""
    v2 = None
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return V1_ROOT / path.lstrip("/"), False
        if controllers == "":
            v2 = V2_ROOT / path.lstrip("/")
    return v2, True


class MemoryGroup:
    """A group with a limit below this process' own. Needs root, as the test machine has it."""

    def __init__(self, name, limit_bytes):
        parent, self.v2 = own_group()
        if not parent.is_dir():  # Inside a container the path is the host's.
            parent = V2_ROOT if self.v2 else V1_ROOT
        self.path = parent / f"{name}-{os.getpid()}"
        if self.v2 and parent != V2_ROOT:
            # Version 2 has processes only in leaves: the new group stands beside our own.
            self.path = parent.parent / self.path.name
        self.hogs = []
        self.limit = limit_bytes
        self.path.mkdir()
        limit = self.path / ("memory.max" if self.v2 else "memory.limit_in_bytes")
        limit.write_text(str(limit_bytes))
        swap = self.path / ("memory.swap.max" if self.v2 else "memory.memsw.limit_in_bytes")
        if swap.exists():
            swap.write_text("0" if self.v2 else str(limit_bytes))

    def command(self, command):
        """`command` as one that joins the group first and keeps its process id."""
        return ["/bin/sh", "-c", 'echo $$ > "$1" && shift && exec "$@"', "-",
                str(self.path / "cgroup.procs"), *command]

    def limit_to(self, limit_bytes):
        """Sets the limit anew. OSError where more is in use than the kernel can take back."""
        limit = self.path / ("memory.max" if self.v2 else "memory.limit_in_bytes")
        swap = self.path / ("memory.swap.max" if self.v2 else "memory.memsw.limit_in_bytes")
        # Version 1 wants memory <= memory and swap at every moment.
        files = [limit] if self.v2 or not swap.exists() else [limit, swap]
        if limit_bytes > self.limit:
            files.reverse()
        for file in files:
            file.write_text(str(limit_bytes))
        self.limit = limit_bytes

    def used(self):
        return int((self.path / ("memory.current" if self.v2 else "memory.usage_in_bytes"))
                   .read_text())

    def available(self):
        return group_available(self.path)

    def peak(self):
        """The most that was ever in use, file cache included."""
        return int((self.path / ("memory.peak" if self.v2 else "memory.max_usage_in_bytes"))
                   .read_text())

    def kills(self):
        """How many processes the kernel has killed here for lack of memory."""
        total = 0
        name = "memory.events" if self.v2 else "memory.oom_control"
        for folder in [self.path] if self.v2 else self.folders():
            for line in (folder / name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    total += int(line.split()[1])
        return total

    def folders(self):
        """This group and all below it, the deepest first."""
        return sorted((path for path in [self.path, *self.path.rglob("*")] if path.is_dir()),
                      key=lambda path: -len(path.parts))

    def hog(self, held_bytes=0, floor=0):
        """A process in the group that holds so much memory; end it with release()."""
        process = Hog(self, floor)
        self.hogs.append(process)
        if held_bytes:
            assert process.tell("hold", held_bytes), "the hog got no memory"
        return process

    def release(self, process):
        self.hogs.remove(process)
        process.end()

    @contextlib.contextmanager
    def out_of_sight(self, pid):
        """Moves a process into a group that it cannot see: its readings are lost meanwhile."""
        hidden = self.path.parent / (self.path.name + "-hidden")
        hidden.mkdir()
        try:
            with open(hidden / "cgroup.procs", "w", encoding="ascii") as door:
                subprocess.run(["mount", "-t", "tmpfs", "tmpfs", hidden], check=True)
                try:
                    door.write(str(pid))
                    door.flush()
                    yield
                finally:
                    (self.path / "cgroup.procs").write_text(str(pid))
                    subprocess.run(["umount", hidden], check=True)
        finally:
            hidden.rmdir()

    def remove(self):
        for process in list(self.hogs):
            self.release(process)
        for folder in self.folders():  # A worker may have a group of its own in this one.
            procs = folder / "cgroup.procs"
            for pid in procs.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            wait_until(lambda: not procs.read_text().strip(), 20, "an empty memory group")
            folder.rmdir()
