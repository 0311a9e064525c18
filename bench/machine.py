"""What this machine is, and how busy others keep it while we measure."""

import os
import pathlib
import re
import time

TICKS = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count()


def describe():
    """One line for the head of a table."""
    info = pathlib.Path("/proc/cpuinfo").read_text()
    processor = re.search(r"model name\s*:\s*(.*)", info)
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return (f"{CORES} cores ({processor.group(1) if processor else os.uname().machine}), "
            f"{int(memory.group(1)) / 2**20:.0f} GB, Linux {os.uname().release}, "
            f"load {os.getloadavg()[0]:.2f}, {time.strftime('%Y-%m-%d')}")


def family(pid):
    """The process and everything that it started, at any depth."""
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = task.read_text().split()
        except OSError:
            continue
        for child in pids:
            found += family(int(child))
    return found


def cpu_seconds(pid):
    """User and system time of one process; 0 for one that has ended."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    user, system = stat.rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / TICKS


def busy_seconds():
    """Core seconds that were not idle since the start, those that a hypervisor took included."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _waiting, interrupt, soft, steal = map(int, fields[:8])
    return (user + nice + system + interrupt + soft + steal) / TICKS


class Interval:
    """CPU time between two moments: of the processes `pids`, and of all that are not ours."""

    def __init__(self, pids):
        self.pids = pids
        self.wall, self.busy = time.monotonic(), busy_seconds()
        self.ours, self.client = self._ours(), cpu_seconds(os.getpid())

    def _ours(self):
        return sum(cpu_seconds(pid) for pid in self.pids)

    def end(self):
        """Returns the CPU seconds of `pids` and the cores that others used meanwhile."""
        ours = self._ours() - self.ours
        client = cpu_seconds(os.getpid()) - self.client
        wall = max(time.monotonic() - self.wall, 1e-3)
        others = max(busy_seconds() - self.busy - ours - client, 0.0)
        return ours, others / wall


def take_priority():
    """Puts this program and its children before all others, where it may; returns whether.

    Linux shares the cores among sessions first, so it takes a session of our own whose priority
    is raised, and that of the process within it.
    """
    try:
        if os.getpid() != os.getsid(0):
            os.setsid()
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        pathlib.Path("/proc/self/autogroup").write_text("-20")
    except OSError:
        return False
    return True


def wait_until_quiet(others_max, seconds):
    """Waits until others use few cores, for `seconds` at most; returns how long that took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        interval = Interval([])
        time.sleep(0.3)
        if interval.end()[1] <= others_max:
            break
    return time.monotonic() - began
