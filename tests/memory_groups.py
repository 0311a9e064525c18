"""Memory groups of the kernel (cgroup v1 or v2) with a limit, and processes that fill them."""

import os
import pathlib
import signal
import subprocess
import sys

from harness import wait_until

V1_ROOT = pathlib.Path("/sys/fs/cgroup/memory")
V2_ROOT = pathlib.Path("/sys/fs/cgroup")
HOG = """
import sys
held = bytearray(int(sys.argv[1]))
held[::4096] = b"x" * len(held[::4096])
print("holding", flush=True)
sys.stdin.read()
"""


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

    def hog(self, held_bytes):
        """A process in the group that holds so much memory; end it with release()."""
        process = subprocess.Popen(
            self.command([sys.executable, "-c", HOG, str(held_bytes)]),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.hogs.append(process)
        assert process.stdout.readline() == b"holding\n", "the hog got no memory"
        return process

    def release(self, process):
        self.hogs.remove(process)
        process.stdin.close()
        process.wait(20)
        process.stdout.close()

    def remove(self):
        for process in list(self.hogs):
            self.release(process)
        for pid in self.path.joinpath("cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        procs = self.path / "cgroup.procs"
        wait_until(lambda: not procs.read_text().strip(), 20, "an empty memory group")
        self.path.rmdir()
