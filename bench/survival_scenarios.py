"""The attacks. Each is a coroutine that is given an Arena; what it demands is in the arena's row.

Demanded of every scenario, without a word here: the front door answers within a second at all
times, nobody else in the group dies, every request has a proper end, the server ends cleanly.
"""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import signal
import time
from collections.abc import Callable

from harness import resident_bytes
from survival_arena import (AGAIN_MAX_SECONDS, CROSSING_MAX_SECONDS, GB, MIB, NO_FLOORS,
                            CannotStart, nearest_rank, small_disk, stopped, user)

# Floors in GB of 2^30 for the groups below: caution, warning, critical, emergency.
REAL_LIMIT_MIB, REAL_FLOORS = 800, (0.30, 0.22, 0.15, 0.08)
SCRIPTED_LIMIT_MIB, SCRIPTED_FLOORS = 384, (0.16, 0.13, 0.10, 0.05)
CROSSINGS = 100
HOLD_SECONDS = 3.0
DISK_MIB = 24  # The state of 630 tokens of the small model has 14.
FULL = "prefixes are not stored for now: taking room in"
FULL_WITHIN_SECONDS = 60
KERNEL_ROUNDS = 5
LAST_MIB = 32

WORDS = ("time person year way day thing man world life hand part child eye woman place work week "
         "case point company number group problem fact water room money story month book night "
         "study game house business service friend father power hour line member law car city "
         "green blue bright cold warm small large early late quick slow under over because").split()


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    text: str
    attack: Callable
    limit_mib: int
    floors: tuple
    not_for_llama: str  # Why it makes no sense for llama-server; empty where it does.
    scripted: bool  # Ours runs the scripted engine.


SCENARIOS = {}


def scenario(text, *, limit_mib=REAL_LIMIT_MIB, floors=REAL_FLOORS, not_for_llama="",
             scripted=False):
    def note(attack):
        name = attack.__name__.replace("_", "-")
        SCENARIOS[name] = Scenario(name, text, attack, limit_mib, floors, not_for_llama, scripted)
        return attack
    return note


def scripted(text, not_for_llama="", **options):
    """On the scripted engine, where memory and faults come on command."""
    options.setdefault("limit_mib", SCRIPTED_LIMIT_MIB)
    options.setdefault("floors", SCRIPTED_FLOORS)
    return scenario(text, not_for_llama=not_for_llama, scripted=True, **options)


def words(arena, count):
    return " ".join(arena.random.choices(WORDS, k=count))


def script(text, **fields):
    return user(f"script: {text}", tokens=100_000, **fields)


SAY_HI = script("say hi")


# --- prompts and generations ----------------------------------------------------------------------

@scenario("24 different prompts of 1,200 to 1,500 words, two clients at a time")
async def distinct_prompts(arena):
    server = arena.serve()
    prompts = [words(arena, arena.random.randint(1200, 1500)) for _ in range(24)]

    async def client():
        while prompts:
            await arena.ask(server, user(prompts.pop(), 4))
    await asyncio.gather(client(), client())
    answered = sum(outcome.kind == "answered" for outcome in arena.row.outcomes)
    arena.row.require(answered == 24, f"only {answered} of 24 were answered")


@scenario("a prompt that fills the window, one of twice the window, a body of 33 MB")
async def huge_prompt(arena):
    server = arena.serve()
    huge = arena.ask(server, user(words(arena, 5200), 4))
    await asyncio.sleep(0.5)
    larger = await arena.ask(server, user(words(arena, 14_000), 4))
    largest = await arena.ask(server, user("word " * 6_920_000, 4))
    arena.row.require((await huge).kind == "answered", f"the prompt that fits: {await huge}")
    if arena.pensieve:
        arena.row.require(larger.status == 400, f"twice the window: {larger}")
        arena.row.require(largest.status == 413, f"33 MB: {largest}")


@scenario("16 streams at once, each of 160 tokens after a prompt of its own")
async def parallel_generations(arena):
    server = arena.serve()
    running = [arena.ask(server, user(f"Tell a long story. {words(arena, 60)}", 160, stream=True))
               for _ in range(16)]
    ends = [await each for each in running]
    answered = sum(end.kind == "answered" for end in ends)
    arena.row.require(answered == 16, f"only {answered} of 16 were answered")


@scripted("clients ask for haiku, sonnet and opus in turn: one model stays, nothing is loaded anew",
          "it takes any model name for its own")
async def alternating_tiers(arena):
    server = arena.serve(script={"weights_mib": 100, "load_ms": 200})
    worker = server.workers()
    for turn in range(60):
        tier = ("claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-4-5")[turn % 3]
        await arena.ask(server, {**SAY_HI, "model": tier})
    answered = sum(outcome.kind == "answered" for outcome in arena.row.outcomes)
    arena.row.require(answered == 60, f"only {answered} of 60 were answered")
    arena.row.require(server.workers() == worker, "the model was loaded anew")


# --- hogs -----------------------------------------------------------------------------------------

async def under_a_hog(arena, server, mib_per_second, content, hold=HOLD_SECONDS):
    """A hog takes all down to half of Emergency's floor, holds it, and gives it back."""
    hog = arena.hog()
    probe = arena.probe(server)
    crossed = await arena.reach(hog, arena.floor("emergency") // 2, mib_per_second)
    await asyncio.sleep(hold)
    relief = await arena.relieve(hog)
    await arena.accepting_again(server, relief, content)
    changes = arena.end_probe(probe)["changes"]
    arena.note_crossing(crossed, changes)
    if arena.pensieve:
        arena.row.require(any(status == 503 for _, status in changes),
                          "nothing was refused though Critical was crossed")


async def hog_and_traffic(arena, mib_per_second, clients=3):
    server = arena.serve()
    over = asyncio.Event()
    arena.traffic(server, clients, lambda: user(words(arena, 80), 24, stream=True), over)
    await asyncio.sleep(2)
    await under_a_hog(arena, server, mib_per_second, user("Say hello.", 4))
    over.set()


@scenario("a hog takes 60 MB/s under load until Emergency, holds, and lets go")
async def slow_hog(arena):
    await hog_and_traffic(arena, 60)


@scenario("the same at once")
async def sudden_hog(arena):
    await hog_and_traffic(arena, 0)


@scenario("a hog comes in the middle of a prompt of 4,000 words")
async def hog_and_long_prefill(arena):
    server = arena.serve()
    arena.ask(server, user(words(arena, 4000), 4, stream=True))
    await asyncio.sleep(2)
    await under_a_hog(arena, server, 0, user("Say hello.", 4))


@scripted("memory goes and comes ten times under streams; each time it accepts again by itself",
          "it never refuses; sudden-hog is the case for it")
async def memory_back(arena):
    server = arena.serve(script={"weights_mib": 60})
    over = asyncio.Event()
    arena.traffic(server, 4, lambda: script("delay 10; repeat 60 x", stream=True), over)
    hog = arena.hog()
    for cycle in range(10):
        await arena.reach(hog, arena.floor("critical" if cycle % 2 else "emergency") - 8 * MIB)
        await asyncio.sleep(0.3)
        relief = await arena.relieve(hog)
        await arena.accepting_again(server, relief, SAY_HI)
    over.set()


@scripted(f"{CROSSINGS} times across Critical and back: how long until the first 503",
          "it never refuses")
async def crossings(arena):
    server = arena.serve(env={"PENSIEVE_MEMORY_RECOVERY_HOLD_MS": "50"})
    hog = arena.hog()
    await arena.reach(hog, arena.floor("caution") + 16 * MIB)
    safe = hog_size(arena)
    probe = arena.probe(server, SAY_HI)
    crossed = []
    for _ in range(CROSSINGS):
        again = time.monotonic() + AGAIN_MAX_SECONDS
        while (await arena.ask(server, SAY_HI)).kind != "answered" and time.monotonic() < again:
            await asyncio.sleep(0.02)
        await asyncio.sleep(arena.random.uniform(0.05, 0.1))  # At any moment of its own sampling.
        crossed.append(await arena.reach(hog, arena.floor("critical") - 4 * MIB))
        await asyncio.sleep(0.06)
        await asyncio.to_thread(hog.tell, "hold", safe)
    changes = arena.end_probe(probe)["changes"]
    refused = 0
    for begin, end in zip(crossed, crossed[1:] + [float("inf")]):
        refused += arena.note_crossing(begin, [change for change in changes if change[0] < end])
    row = arena.row
    row.require(refused == CROSSINGS, f"{refused} of {CROSSINGS} crossings were refused")
    row.require(len(row.crossings) >= 0.9 * CROSSINGS, f"only {len(row.crossings)} samples")
    if row.crossings:
        p99 = nearest_rank(row.crossings, 0.99)
        row.require(p99 <= CROSSING_MAX_SECONDS, f"p99 of the first 503: {p99 * 1000:.0f} ms")


@scripted("at Critical, 48 clients ask again and again without a pause",
          "it never refuses")
async def retry_storm(arena):
    server = arena.serve()
    hog = arena.hog()
    await arena.reach(hog, arena.floor("critical") - 16 * MIB)
    over = asyncio.Event()
    tasks = []

    async def client():
        while not over.is_set():
            await arena.ask(server, SAY_HI)
    tasks = [asyncio.ensure_future(client()) for _ in range(48)]
    await asyncio.sleep(4)
    over.set()
    await asyncio.gather(*tasks)
    refused = sum(outcome.status == 503 for outcome in arena.row.outcomes)
    arena.row.require(refused >= 0.95 * len(arena.row.outcomes), "Critical did not refuse")
    relief = await arena.relieve(hog)
    await arena.accepting_again(server, relief, SAY_HI)


@scenario("somebody writes and reads a file of twice the limit: page cache is no shortage")
async def page_cache_flood(arena):
    server = arena.serve()
    over = asyncio.Event()
    arena.traffic(server, 1, lambda: user("Say hello.", 4), over)
    hog = arena.hog()
    await asyncio.to_thread(hog.tell, "cache", arena.folder / "flood", 2 * arena.row.limit)
    over.set()
    await arena.finish_tasks()
    refused = [outcome for outcome in arena.row.outcomes if outcome.kind != "answered"]
    arena.row.require(not refused, f"{len(refused)} were not answered: {refused[:1]}")


# --- loads ----------------------------------------------------------------------------------------

@scripted("a model that misses 8 MiB is refused, loaded when they come, and a hog comes meanwhile",
          "it loads before it listens, so that there is no front door yet")
async def load_nearly_fits(arena):
    hog = arena.hog()
    weights, process = 160 * MIB, 16 * MIB
    # What the gateway itself takes is small, and its own.
    await arena.reach(hog, arena.floor("critical") + weights + process + 8 * MIB)
    held = (await asyncio.to_thread(hog.tell, "hold", hog_size(arena) + 16 * MIB))["held"]
    server = arena.serve(script={"weights_mib": weights // MIB, "load_ms": 1500,
                                 "kv_kib_per_token": 0})
    refused = await arena.ask(server, SAY_HI)
    arena.row.require(refused.status == 503 and "GB" in refused.detail,
                      f"the load that does not fit: {refused}")
    answer = await asyncio.to_thread(hog.tell, "hold", held - 40 * MIB)
    again = asyncio.ensure_future(arena.accepting_again(server, answer["done"], SAY_HI, 10))
    await asyncio.sleep(1.0)  # In the middle of the load.
    await asyncio.to_thread(hog.tell, "hold", held - 10 * MIB)
    await asyncio.sleep(2.0)
    relief = await arena.relieve(hog)
    await again
    await arena.accepting_again(server, relief, SAY_HI, 5)


def hog_size(arena):
    """What the hogs hold now, as the kernel sees it from their resident sets."""
    total = 0
    for hog in arena.hogs:
        status = pathlib.Path(f"/proc/{hog.pid}/smaps_rollup").read_text(encoding="ascii")
        anonymous = next(line for line in status.splitlines() if line.startswith("Anonymous:"))
        total += int(anonymous.split()[1]) * 1024
    return total // MIB * MIB


@scenario("two servers in one group whose models do not fit together; the first one ends",
          limit_mib=SCRIPTED_LIMIT_MIB, floors=SCRIPTED_FLOORS)
async def two_models(arena):
    options = {"script": {"weights_mib": 170, "kv_kib_per_token": 0}} if arena.pensieve else {}
    first = arena.serve(**options)
    content = SAY_HI if arena.pensieve else user(words(arena, 1300), 4)
    await arena.ask(first, content)
    second = arena.serve(**options)
    for _ in range(5):
        refused, answered = await asyncio.gather(arena.ask(second, content),
                                                 arena.ask(first, content))
        if not arena.pensieve:
            continue
        arena.row.require(refused.status == 503 and "GB" in refused.detail, f"second: {refused}")
        arena.row.require(answered.kind == "answered", f"first: {answered}")
    if not arena.pensieve:
        return
    os.kill(first.workers()[0], signal.SIGKILL)
    await arena.accepting_again(second, time.monotonic(), content, 12)
    taken = await arena.ask(first, content)
    arena.row.require(taken.status == 503, f"first, after the second took its place: {taken}")


# --- engines that go wrong ------------------------------------------------------------------------

@scripted("each request leaks 12 MiB for ever; nobody but the server itself can bring relief",
          "it has no engine that leaks on command")
async def leaking_engine(arena):
    server = arena.serve()
    for _ in range(60):
        await arena.ask(server, script("leak 12; say hi"))
    refused = sum(outcome.status == 503 for outcome in arena.row.outcomes)
    await arena.accepting_again(server, time.monotonic(), SAY_HI, 5)
    arena.row.require(refused < 30, f"{refused} of 60 were refused: the leak was not ended")


@scripted("an engine takes all memory under four streams until the kernel kills it",
          "it has no engine that takes memory on command; sudden-hog is the case for it",
          floors=NO_FLOORS)
async def kernel_kill_mid_stream(arena):
    server = arena.serve()
    streams = [arena.ask(server, script("delay 20; repeat 400 x", stream=True)) for _ in range(3)]
    await asyncio.sleep(0.5)
    await arena.ask(server, script("say one; oom; say never", stream=True))
    killed = time.monotonic()
    await arena.accepting_again(server, killed, SAY_HI)
    for stream in streams:
        await stream
    arena.row.require(arena.kills() >= 1, "the kernel killed nobody; nothing was proved")


@scenario("a hog takes the last byte before anybody can act: the kernel chooses the engine",
          floors=NO_FLOORS)
async def kernels_choice(arena):
    server = arena.serve()
    over = asyncio.Event()
    arena.traffic(server, 2, lambda: user(words(arena, 80), 24, stream=True), over)
    await asyncio.sleep(2)
    for _ in range(KERNEL_ROUNDS):
        hog = arena.hog()
        relief = await take_the_last_byte(arena, server, hog)
        if hog.alive() or not arena.pensieve:
            break
        await asyncio.sleep(1)  # Until the server has seen how its engine ended.
        if not arena.killed_by_kernel(server):
            break
        # The kernel did choose the engine, and the hog as well: a process whose first thread has
        # ended already is no victim in the eyes of this kernel, though its memory is not free yet.
        arena.hogs.remove(hog)
        await arena.accepting_again(server, relief, user("Say hello.", 4), 5)
    over.set()
    # The model is loaded anew, which takes its time.
    await arena.accepting_again(server, relief, user("Say hello.", 4), 5)
    arena.row.require(arena.kills() >= 1, "the kernel killed nobody; nothing was proved")


async def take_the_last_byte(arena, server, hog):
    """Takes more than is left, less than is left without the engine; returns when it let go."""
    engine = resident_bytes((server.workers() or [server.pid])[0])
    last = hog_size(arena) + arena.group.available() - LAST_MIB * MIB
    await asyncio.to_thread(hog.tell, "hold", last)
    # Now and then the server would be faster than the kernel, and be ending its engine while the
    # kernel looks for a victim; here it gets no time to act.
    with stopped(server.pid) if arena.pensieve else contextlib.nullcontext():
        await asyncio.to_thread(hog.tell, "hold", last + LAST_MIB * MIB + engine // 2, 200)
    return await arena.relieve(hog)


@scripted("an engine stands still in the middle of streams", "it has no process to stop but itself",
          floors=NO_FLOORS)
async def frozen_engine(arena):
    server = arena.serve(env={"PENSIEVE_SERVER_HANG_SECONDS": "2"})
    streams = [arena.ask(server, script("delay 20; endless x", stream=True)) for _ in range(3)]
    await asyncio.sleep(0.5)
    with stopped(server.workers()[0]):
        waiting = arena.ask(server, SAY_HI)
        for stream in streams:
            arena.row.require((await stream).kind == "ended", f"a frozen stream: {await stream}")
    arena.row.require((await waiting).proper, f"the request that waited: {await waiting}")
    await arena.accepting_again(server, time.monotonic(), SAY_HI)


# --- the house ------------------------------------------------------------------------------------

@scenario("the disk for stored prefixes holds one of four states, and then a hog comes",
          limit_mib=1200, not_for_llama="it stores nothing on disk by itself")
async def disk_full(arena):
    with small_disk(arena.folder / "disk", DISK_MIB) as disk:
        try:
            server = arena.serve(env={"PENSIEVE_CACHE_DIRECTORY": str(disk)})
        except CannotStart as error:
            arena.row.require(False, f"no folder for stored prefixes can be set: {error}")
            return
        for _ in range(4):
            await arena.ask(server, user(words(arena, 600), 4))
        # What rests is stored, one after the other: the first state fits, the second does not.
        end = time.monotonic() + FULL_WITHIN_SECONDS
        while FULL not in server.log() and time.monotonic() < end:
            await asyncio.sleep(0.5)
        arena.row.require(FULL in server.log(),
                          "the disk was never full; nothing was proved")
        arena.row.require(any(disk.iterdir()), "nothing was ever stored there")
        await under_a_hog(arena, server, 100, user("Say hello.", 4))
        for _ in range(4):
            await arena.ask(server, user(words(arena, 600), 4))
        written = sum(path.stat().st_size for path in disk.rglob("*") if path.is_file())
        arena.row.require(written <= DISK_MIB * MIB, "more was written than there is")


@scenario("the group's limit is lowered under load, below the floors, and raised again")
async def limit_lowered(arena):
    server = arena.serve()
    over = asyncio.Event()
    arena.traffic(server, 3, lambda: user(words(arena, 80), 24, stream=True), over)
    await asyncio.sleep(2)
    limit = arena.row.limit
    for left in (0.28, 0.18, 0.12, 0.06):
        wanted = arena.group.limit - max(0, arena.group.available() - int(left * GB))
        with contextlib.suppress(OSError):  # As low as the kernel lets us.
            arena.group.limit_to(wanted)
        await asyncio.sleep(1.2)
    refused = await arena.ask(server, user("Say hello.", 4))
    if arena.pensieve:
        arena.row.require(refused.status == 503, f"below the floors: {refused}")
    arena.group.limit_to(limit)
    await arena.accepting_again(server, time.monotonic(), user("Say hello.", 4))
    over.set()


@scripted("96 descriptors, 300 connections that say nothing, and the worker dies meanwhile",
          floors=NO_FLOORS)
async def descriptors_exhausted(arena):
    server = arena.serve(before=("prlimit", "--nofile=96:96"))
    idle = []
    for _ in range(300):
        with contextlib.suppress(OSError):
            idle.append((await asyncio.open_connection("127.0.0.1", server.port))[1])
    content = SAY_HI if arena.pensieve else user("Say hello.", 4)
    for _ in range(10):
        await arena.ask(server, content)
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
    await arena.accepting_again(server, time.monotonic(), content, 5)
    for writer in idle:
        writer.transport.abort()
    await arena.accepting_again(server, time.monotonic(), content)
