"""Random faults against a loaded server: afterwards everything is as it was before.

The seed is printed; PENSIEVE_CHAOS_SEED=N plays the same faults again, at the machine's own pace.
"""

import asyncio
import contextlib
import os
import random
import signal
import time

import pytest
from harness import (ask, body, children, floors, is_running, open_descriptors, resident_bytes,
                     wait_until, worker_program)
from wire import FAILED, PROPER, Ask, counted

MIB = 1 << 20
SECONDS = 25
CLIENTS = 12
LIMIT = 384 * MIB
FLOORS = floors(0.16, 0.13, 0.10, 0.05)
CRITICAL, EMERGENCY = int(0.10 * (1 << 30)), int(0.05 * (1 << 30))
GATEWAY_GROWTH_MAX = 24 * MIB
# What a worker does that is none; `3` is its socket.
FAULTY_WORKERS = ["head -c 100000 /dev/urandom >&3; sleep 60", "printf 'no frame' >&3; sleep 60",
                  "exit 7", "kill -SEGV $$", "exec sleep 60", "exec 3>&-; exec sleep 60"]


class Chaos:
    """The faults. Each leaves things as they were, except for what it broke."""

    def __init__(self, server, group, folder, source):
        self.server, self.group, self.folder, self.random = server, group, folder, source
        self.hog = group.hog()
        self.workers = set()
        self.done = []

    def worker(self):
        living = self.server.workers()
        self.workers.update(living)
        return living[-1] if living else None

    def signal_worker(self, number):
        worker = self.worker()
        if worker:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, number)
        return worker

    async def kill(self):
        self.signal_worker(signal.SIGKILL)

    async def freeze(self):
        """For a while, or until the server has had enough and kills it."""
        worker = self.signal_worker(signal.SIGSTOP)
        await asyncio.sleep(self.random.choice([0.1, 0.4, 3.0]))
        if worker:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)

    async def faulty_worker(self):
        (self.folder / "faulty").write_text(self.random.choice(FAULTY_WORKERS))
        self.signal_worker(signal.SIGKILL)
        await asyncio.sleep(self.random.uniform(0.2, 1.5))
        (self.folder / "faulty").unlink()
        # A worker that could not load is tried again after a second, then two, ...
        await asyncio.sleep(2.5)

    async def shortage(self):
        floor = self.random.choice([CRITICAL, EMERGENCY])
        await asyncio.to_thread(self.hog.tell, "reach", floor - 8 * MIB, 0)
        await asyncio.sleep(self.random.uniform(0.1, 0.8))
        await asyncio.to_thread(self.hog.tell, "hold", 0)

    async def lower_limit(self):
        with contextlib.suppress(OSError):  # As far as the kernel can.
            self.group.limit_to(self.group.used() + self.random.randint(10, 90) * MIB)
        await asyncio.sleep(self.random.uniform(0.1, 0.8))
        self.group.limit_to(LIMIT)

    async def lose_readings(self):
        with self.group.out_of_sight(self.server.pid):
            # Readings are good for 3 s.
            await asyncio.sleep(self.random.choice([0.5, 3.5]))

    async def run(self):
        faults = [self.kill, self.freeze, self.faulty_worker, self.shortage, self.lower_limit,
                  self.lose_readings]
        end = time.monotonic() + SECONDS
        # Each at least once, in any order; then what comes.
        queue = self.random.sample(faults, len(faults))
        faults += [self.kill, self.freeze]  # The most frequent ones.
        while time.monotonic() < end or queue:
            fault = queue.pop() if queue else self.random.choice(faults)
            await fault()
            self.done.append(fault.__name__)
            self.worker()
            await asyncio.sleep(self.random.uniform(0.3, 2.0))


def random_request(source, folder):
    """(content, options) of a request of a random kind."""
    text = source.choice([
        "say hi", "repeat 40 x", "delay 5; repeat 80 x", "delay 20; repeat 100 x",
        "grow 20; say one; delay 10; repeat 20 x", "slow 300; say two", "delay 5; endless x",
        "w" * 20_000])
    if source.random() < 0.02:  # It takes everybody else's stream along.
        text = source.choice([
            "say one; abort; say never", "say one; segv", "badalloc", "say one; fail",
            f"once {folder}/mark-{source.randrange(1 << 30)} abort; say recovered"])
    streamed = source.random() < 0.6
    options = {}
    if "endless" in text:
        streamed, options["leave_after"] = True, source.randint(1, 40)
    elif streamed and source.random() < 0.2:
        options["leave_after"] = source.randint(1, 5)
    return body("script: " + text, stream=streamed), options


async def storm(server, chaos, source, folder):
    over = asyncio.Event()
    outcomes = []

    async def client():
        while not over.is_set():
            content, options = random_request(source, folder)
            outcome = await Ask(server.port, content, deadline=60, **options).run()
            outcomes.append(outcome)
            await asyncio.sleep(0.02 if outcome.kind == "answered" else 0.1)

    clients = [asyncio.ensure_future(client()) for _ in range(CLIENTS)]
    try:
        await chaos.run()
    finally:
        over.set()
    await asyncio.gather(*clients)
    return outcomes


@pytest.mark.timeout(150)
def test_after_random_faults_under_load_everything_is_as_it_was(serve_script, memory_group,
                                                                tmp_path, measured):
    seed = int(os.environ.get("PENSIEVE_CHAOS_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"PENSIEVE_CHAOS_SEED={seed}")
    source = random.Random(seed)
    group = memory_group(LIMIT)
    program = worker_program(tmp_path, f'eval "$(cat {tmp_path}/faulty)"')
    server = serve_script(group=group, model={"weights_mib": 40}, env={
        **FLOORS, "PENSIEVE_WORKER_PROGRAM": str(program), "PENSIEVE_SERVER_HANG_SECONDS": "1",
        "PENSIEVE_MEMORY_RECOVERY_HOLD_MS": "200"})
    assert ask(server, "script: say hi").status_code == 200
    resident, descriptors = resident_bytes(server.pid), open_descriptors(server.pid)
    chaos = Chaos(server, group, tmp_path, source)

    outcomes = asyncio.run(storm(server, chaos, source, tmp_path))

    kinds = counted(outcomes)
    improper = [str(outcome) for outcome in outcomes if outcome.kind not in (*PROPER, FAILED)]
    assert not improper, f"seed {seed}: {len(improper)} of {len(outcomes)}: {improper[:5]}"
    # A worker that was no worker is tried again after a pause that doubles up to 30 s.
    wait_until(lambda: ask(server, "script: say hi").status_code == 200, 35, "an answer again")
    assert kinds.get("answered", 0) >= 20, f"seed {seed}: {kinds}"
    living = server.workers()
    assert len(living) == len(children(server.pid)) == 1
    left = [pid for pid in chaos.workers if is_running(pid) and pid not in living]
    assert not left, f"seed {seed}: workers that were replaced still run: {left}"
    wait_until(lambda: open_descriptors(server.pid) <= descriptors, 10,
               f"descriptors back at {descriptors}")
    growth = resident_bytes(server.pid) - resident
    measured(f"chaos, seed {seed}: {len(chaos.done)} faults, {len(outcomes)} requests: "
             + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
             + f"; gateway {growth // 1024:+} KiB (bound {GATEWAY_GROWTH_MAX // 1024})")
    assert growth <= GATEWAY_GROWTH_MAX
