"""bench check: what the memory guard costs a request, and the gateway's memory when idle."""

import pathlib
import re
import subprocess
import tempfile
import time

import machine
from servers import Pensieve

SETTLE_SECONDS = 2
GOAL_US = 10            # p99 of one admission check.
BOUND_US = 10_000       # The user's: 10 ms, whatever the check has to do.
GOAL_RSS_BYTES = 15 * 2**20


def guard_rows(build):
    """name -> (calls, p50, p99, max), in µs."""
    done = subprocess.run([build / "check_bench"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"check_bench ended with {done.returncode}: {done.stderr}")
    rows = {}
    for line in done.stdout.splitlines():
        name, calls, *figures = line.split("\t")
        rows[name] = (int(calls), *map(float, figures))
    return rows


def gateway_memory(build):
    """VmRSS and RssAnon in bytes, a while after the start, with the scripted engine."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model = folder / "idle.script"
        model.write_text("# defaults\n")
        gateway = Pensieve(folder, build, ["--engine", "scripted", "--model", model])
        try:
            time.sleep(SETTLE_SECONDS)
            status = pathlib.Path(f"/proc/{gateway.process.pid}/status").read_text()
        finally:
            gateway.stop()
    fields = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB", status, re.M))
    return {field: int(kib) * 1024 for field, kib in fields.items()}


def verdict(good):
    return "ok" if good else "MISS"


def main(arguments):
    print(machine.describe() + "\n")
    print(f"{'guard, one call':<32}{'calls':>8}{'p50 µs':>10}{'p99 µs':>10}{'max µs':>10}  goal")
    failed = False
    for name, (calls, p50, p99, most) in guard_rows(arguments.build).items():
        goal = f"p99 <= {GOAL_US} µs: {verdict(p99 <= GOAL_US)}, " \
            if name == "admission check" else ""
        failed = failed or p99 > BOUND_US
        print(f"{name:<32}{calls:>8}{p50:>10.2f}{p99:>10.2f}{most:>10.1f}  {goal}"
              f"p99 <= {BOUND_US // 1000} ms: {verdict(p99 <= BOUND_US)}")
    memory = gateway_memory(arguments.build)
    good = memory["VmRSS"] <= GOAL_RSS_BYTES
    print(f"\ngateway idle, {SETTLE_SECONDS} s after its start: "
          f"RSS {memory['VmRSS'] / 2**20:.1f} MB, of it anonymous "
          f"{memory['RssAnon'] / 2**20:.1f} MB  (goal RSS <= {GOAL_RSS_BYTES // 2**20} MB: "
          f"{verdict(good)})")
    return 1 if failed or not good else 0
