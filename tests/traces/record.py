#!/usr/bin/env python3
"""Records the memory of this machine, or of a memory group, as a trace (README.md has the format).

    record.py watch --group /sys/fs/cgroup/memory/x --seconds 60 > incident.csv
    record.py NAME > NAME.csv      (one of the incidents below; root, cgroup v1)

`watch` only reads. An incident makes a group with a limit of 1 GiB, runs a program in it, and
removes both.
"""

import argparse
import mmap
import os
import random
import signal
import sys
import time

COLUMNS = ["time_ms", "available_kib", "total_kib", "limited_by", "psi_scope", "some_avg10",
           "some_total_us", "full_avg10", "full_total_us", "swap_scope", "swap_in_pages", "low",
           "high", "max", "oom", "oom_kill", "held_kib"]
ROOT = "/sys/fs/cgroup/memory"
LIMIT = 1 << 30
FLOORS_MIB = "384 256 128 64"
MIB = 1 << 20


def text(path):
    with open(path) as file:
        return file.read()


def keyed(path, key):
    for line in text(path).splitlines():
        words = line.replace(":", " ").split()
        if words[0] == key:
            return int(words[1])
    return None


class Watch:
    """Reads what src/memory reads, where it reads it."""

    def __init__(self, group, pressure):
        self.group = group
        self.pressure = pressure
        self.start = time.monotonic()

    def memory(self):
        readings = [(keyed("/proc/meminfo", "MemAvailable"), keyed("/proc/meminfo", "MemTotal"),
                     "machine")]
        if self.group and os.path.exists(f"{self.group}/memory.limit_in_bytes"):
            limit = int(text(f"{self.group}/memory.limit_in_bytes"))
            usage = int(text(f"{self.group}/memory.usage_in_bytes"))
            cache = sum(keyed(f"{self.group}/memory.stat", f"total_{kind}_file")
                        for kind in ("inactive", "active"))
            available = max(0, limit - max(0, usage - cache))
            readings.append((available >> 10, limit >> 10, "group"))
        elif self.group:
            limit_text = text(f"{self.group}/memory.max").strip()
            if limit_text != "max":
                usage = int(text(f"{self.group}/memory.current"))
                cache = sum(keyed(f"{self.group}/memory.stat", f"{kind}_file")
                            for kind in ("inactive", "active"))
                available = max(0, int(limit_text) - max(0, usage - cache))
                readings.append((available >> 10, int(limit_text) >> 10, "group"))
        return min(readings)

    def stalls(self):
        own = bool(self.pressure)
        words = text(self.pressure or "/proc/pressure/memory").replace("=", " ").split()
        return ["own" if own else "machine", words[2], words[8], words[11], words[17]]

    def swap_in(self):
        if self.group:
            for key in ("pswpin", "total_workingset_refault_anon", "workingset_refault_anon"):
                pages = keyed(f"{self.group}/memory.stat", key)
                if pages is not None:
                    return ["own", pages]
        return ["machine", keyed("/proc/vmstat", "pswpin")]

    def events(self):
        if not self.group:
            return [""] * 5
        if os.path.exists(f"{self.group}/memory.failcnt"):
            kills = keyed(f"{self.group}/memory.oom_control", "oom_kill")
            return [0, 0, int(text(f"{self.group}/memory.failcnt")), 0, kills]
        return [keyed(f"{self.group}/memory.events", key)
                for key in ("low", "high", "max", "oom", "oom_kill")]

    def row(self):
        now = round((time.monotonic() - self.start) * 1000)
        cells = [now, *self.memory(), *self.stalls(), *self.swap_in(), *self.events(), ""]
        return ",".join(str(cell) for cell in cells)

    def record(self, seconds, interval, say):
        deadline = self.start + seconds
        while (now := time.monotonic()) < deadline:
            print(self.row(), flush=True)
            say(now - self.start)
            passed = time.monotonic() - self.start
            time.sleep(max(0.0, (int(passed / interval) + 1) * interval - passed))


def header(what, floors):
    print(f"# {what}")
    print(f"# recorded with record.py, Linux {os.uname().release}")
    print(f"# floors_mib: {floors}")
    print(",".join(COLUMNS))


class Group:
    """A v1 memory group with a limit, and one program in it."""

    def __init__(self, limit):
        self.path = f"{ROOT}/pensieve-trace-{os.getpid()}"
        os.mkdir(self.path)
        self.set_limit(limit)
        self.child = 0

    def set_limit(self, limit):
        with open(f"{self.path}/memory.limit_in_bytes", "w") as file:
            file.write(str(limit))

    def run(self, program):
        self.child = os.fork()
        if self.child == 0:
            with open(f"{self.path}/cgroup.procs", "w") as file:
                file.write(str(os.getpid()))
            os.dup2(2, 1)  # Not into the trace.
            program()
            os._exit(0)

    def close(self):
        for process in text(f"{self.path}/cgroup.procs").split():
            os.kill(int(process), signal.SIGKILL)
        if self.child:
            os.waitpid(self.child, 0)
        for _ in range(100):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.05)


def take(size):
    memory = mmap.mmap(-1, size)
    for page in range(0, size, mmap.PAGESIZE):
        memory[page] = 1
    return memory


def sudden_hog():
    base = take(150 * MIB)
    time.sleep(6)
    hog = take(800 * MIB)
    time.sleep(5)
    hog.close()
    time.sleep(60)
    return base


def slow_leak():
    held = [take(200 * MIB)]
    time.sleep(5)
    while len(held) < 780:
        held.append(take(MIB))
        time.sleep(1 / 12)
    held.clear()
    time.sleep(60)


def flood(path):
    block = b"x" * MIB
    base = take(200 * MIB)
    time.sleep(3)
    with open(path, "wb") as file:
        for _ in range(2500):
            file.write(block)
    for _ in range(2):
        with open(path, "rb") as file:
            while file.read(MIB):
                pass
    time.sleep(60)
    return base


def steady():
    base = take(300 * MIB)
    time.sleep(60)
    return base


def thrash(path):
    """Four processes look at random pages of a file that does not quite fit their group."""
    time.sleep(4)
    until = time.monotonic() + 20
    for _ in range(3):
        if os.fork() == 0:
            break
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        while time.monotonic() < until:
            for _ in range(1000):
                pages[random.randrange(len(pages))]
    time.sleep(60)


def nothing(_):
    pass


def incident(name):
    scratch = f"/var/tmp/pensieve-trace-{os.getpid()}"
    group = Group(LIMIT)
    watch = Watch(group.path, "")
    floors, seconds, say = FLOORS_MIB, 20, nothing
    if name == "sudden-hog":
        what = "A program takes 800 MiB of a 1 GiB group at once and gives it back"
        program = sudden_hog
    elif name == "slow-leak":
        what, program, seconds = "A program leaks about 12 MiB/s in a 1 GiB group", slow_leak, 80
    elif name == "page-cache-flood":
        what, seconds = "A file of 2.5 GiB is written and read in a 1 GiB group", 25
        program = lambda: flood(scratch)  # noqa: E731
    elif name == "limit-lowered":
        what, program = "The limit of a group falls from 1 GiB to 400 MiB and rises again", steady
        limits = {6: 400 * MIB, 12: LIMIT}

        def say(passed):
            for when in [when for when in limits if passed >= when]:
                group.set_limit(limits.pop(when))
    elif name == "others-pressure":
        what = "Another group of 64 MiB thrashes; ours is the machine, which has plenty"
        seconds = 32
        with open(scratch, "wb") as file:
            for _ in range(96):
                file.write(b"x" * MIB)
            file.flush()
            os.fsync(file.fileno())
            # Whoever touches a page first is charged: that has to be the group.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        group.set_limit(64 * MIB)
        watch = Watch("", "")
        available = keyed("/proc/meminfo", "MemAvailable") >> 10
        # Such that we are at Warning all the time: the level at which a vote would refuse.
        floors = f"{available * 4} {available * 2} {available // 2} {available // 4}"
        program = lambda: thrash(scratch)  # noqa: E731
    else:
        sys.exit(f"no such incident: {name}")
    try:
        group.run(program)
        time.sleep(0.5)
        header(what, floors)
        watch.start = time.monotonic()
        watch.record(seconds, 0.25, say)
    finally:
        group.close()
        if os.path.exists(scratch):
            os.remove(scratch)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what")
    parser.add_argument("--group", default="", help="folder of a memory group, v1 or v2")
    parser.add_argument("--pressure", default="", help="memory.pressure of our own v2 group")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--interval-ms", type=int, default=250)
    parser.add_argument("--floors-mib", default="3072 2048 1024 512")
    arguments = parser.parse_args()
    if arguments.what != "watch":
        return incident(arguments.what)
    header("Watched", arguments.floors_mib)
    watch = Watch(arguments.group, arguments.pressure)
    return watch.record(arguments.seconds, arguments.interval_ms / 1000, nothing)


if __name__ == "__main__":
    main()
