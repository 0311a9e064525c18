"""What one survival scenario runs in: a memory group with a bystander, servers, clients, watchers.

The servers, the hogs and the bystander are in the group; clients and watchers are outside, as on a
real machine they would be somebody else's. Nothing here is simulated: the limit is the kernel's,
and so is whoever it kills.
"""

import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import time

import httpx

import harness
from attackers import Attacker, Door, Probe
from memory_groups import MemoryGroup
from servers import MODEL, Program, free_port
from wire import Ask, counted

MIB = 1 << 20
GB = 1 << 30
DOOR_MAX_SECONDS = 1.0     # The front door answers within this, at all times.
AGAIN_MAX_SECONDS = 2.0    # From relief to the first answer.
CROSSING_MAX_SECONDS = 0.050  # p99, from crossing Critical to the first 503.
REQUEST_MAX_SECONDS = 300.0    # A request that takes longer is counted as hung.
WEDGED_SECONDS = 20.0         # So long it is asked again and again before we call it wedged.
MODEL_NAME = "claude-sonnet-4-5"  # Every server here takes it for the one that it has.
NO_FLOORS = (0.004, 0.003, 0.002, 0.001)  # So low that the kernel acts first.


def user(text, tokens=16, **fields):
    return {"model": MODEL_NAME, "max_tokens": tokens, "temperature": 0,
            "messages": [{"role": "user", "content": text}], **fields}


def nearest_rank(values, share):
    """The percentile: the smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


class PensieveServer:
    """`pensieve serve` in the arena's group."""

    def __init__(self, arena, name, *, script=None, arguments=(), env=None, before=()):
        model = MODEL
        if script is not None:
            model = harness.write_script_model(arena.folder, name=f"{name}-model", **script)
        self.server = harness.Server(
            arena.folder / name, ["--model", model, *arguments],
            env={**harness.floors(*arena.floors), **(env or {})}, group=arena.group,
            program=arena.build / "pensieve", before=before)
        self.port, self.pid = self.server.port, self.server.pid

    def alive(self):
        return self.server.process.poll() is None

    def workers(self):
        return self.server.workers()

    def status(self):
        return self.server.http.get("/v1/pensieve/ps").json()["models"][0]

    def log(self):
        return self.server.log()

    def stop(self):
        """Returns what was wrong with its end, or nothing."""
        try:
            self.server.stop()
        except AssertionError as error:
            return str(error)[-600:]
        return ""


class LlamaServer(Program):
    """llama-server in the arena's group, at its own defaults."""

    program = None  # Set by survival.main() where it is asked for.

    def __init__(self, arena, name, *, before=()):
        self.port = free_port()
        command = [*before, self.program, "-m", MODEL, "--host", "127.0.0.1",
                   "--port", self.port, "--no-webui"]
        super().__init__(name, arena.group.command([str(word) for word in command]), arena.folder)
        self.pid = self.process.pid
        try:
            self.wait_for(lambda: self.answers_health(self.port), "/health says ok")
        except SystemExit as error:
            super().stop()
            raise CannotStart(str(error)) from None

    def alive(self):
        return self.process.poll() is None

    def workers(self):
        return []

    def log(self):
        return self.output()

    def stop(self):
        ended = self.process.poll()
        super().stop()
        return f"had ended with {ended}" if ended is not None else ""


class CannotStart(Exception):
    """The server did not come up."""


@dataclasses.dataclass
class Row:
    """What the table shows of one scenario."""

    name: str
    faults: list = dataclasses.field(default_factory=list)
    outcomes: list = dataclasses.field(default_factory=list)
    crossings: list = dataclasses.field(default_factory=list)  # Seconds to the first 503.
    again: list = dataclasses.field(default_factory=list)  # Seconds from relief to an answer.
    door_slowest: float = 0.0
    door_faults: int = 0
    others_died: int = 0
    peak: int = 0
    limit: int = 0
    kills: int = 0
    seconds: float = 0.0
    wedged: bool = False
    not_run: str = ""

    @property
    def lost(self):
        return sum(not outcome.proper for outcome in self.outcomes)

    @property
    def survived(self):
        return not self.faults and not self.not_run

    def require(self, claim, why):
        if not claim:
            self.faults.append(why)


class Arena:
    """One scenario's; close() ends everything in it and completes the row."""

    def __init__(self, name, folder, build, *, limit_mib, floors, pensieve, scripted=False):
        self.scripted = scripted  # Servers of ours run a script where they are given no other.
        self.row = Row(name, limit=limit_mib * MIB)
        self.folder, self.build, self.floors, self.pensieve = folder, build, floors, pensieve
        self.random = random.Random(name)  # The same attack each time.
        self.servers, self.doors, self.probes, self.tasks = [], [], [], []
        self.began = time.monotonic()
        self.group = MemoryGroup(f"pensieve-survival-{name}", limit_mib * MIB)
        self.bystander = Attacker("hog", self.group.path, 0, group=self.group)
        self.bystander.tell("hold", 8 * MIB)
        self.hogs = []

    # --- who fights ---

    def serve(self, *, script=None, before=(), **options):
        """Starts a server and watches its front door from then on."""
        name = f"server-{len(self.servers)}"
        if self.scripted and script is None:
            script = {}
        if self.pensieve:
            try:
                server = PensieveServer(self, name, script=script, before=before, **options)
            except AssertionError as error:
                raise CannotStart(str(error)[-600:]) from None
        else:
            server = LlamaServer(self, name, before=before)
        self.servers.append(server)
        self.doors.append(Door(server.port))
        return server

    def floor(self, level):
        """Bytes of a floor: caution, warning, critical or emergency."""
        names = ("caution", "warning", "critical", "emergency")
        return int(self.floors[names.index(level)] * GB)

    def hog(self):
        hog = self.group.hog(floor=self.floor("critical"))
        self.hogs.append(hog)
        return hog

    async def reach(self, hog, available, mib_per_second=0):
        """Lets a hog take memory until so much is left; returns when Critical was crossed."""
        answer = await asyncio.to_thread(hog.tell, "reach", int(available), mib_per_second)
        return answer["crossed"] if answer else None

    async def relieve(self, hog):
        """Lets a hog give all back; returns when that was done."""
        answer = await asyncio.to_thread(hog.tell, "hold", 0)
        return answer["done"] if answer else time.monotonic()

    def probe(self, server, content=None, interval_ms=3):
        """By default a request that admission sees and that costs no engine anything."""
        probe = Probe(server.port, content or {}, interval_ms)
        self.probes.append(probe)
        return probe

    def end_probe(self, probe):
        self.probes.remove(probe)
        return probe.end()

    def ask(self, server, content, **options):
        """Starts a request; its outcome is on the row whatever becomes of it."""
        options.setdefault("deadline", REQUEST_MAX_SECONDS)
        asking = Ask(server.port, content, strict=self.pensieve, **options)
        self.row.outcomes.append(asking.outcome)
        task = asyncio.ensure_future(asking.run())
        task.asking = asking
        self.tasks.append(task)
        return task

    def traffic(self, server, clients, make, until, pause=0.05):
        """Clients that ask one thing after another until `until` is set."""
        async def client():
            while not until.is_set():
                outcome = await self.ask(server, make())
                # As the official clients do after a refusal, only sooner.
                await asyncio.sleep(pause if outcome.kind == "answered" else 0.25)
        tasks = [asyncio.ensure_future(client()) for _ in range(clients)]
        self.tasks += tasks
        return tasks

    async def accepting_again(self, server, since, content, within=AGAIN_MAX_SECONDS):
        """Asks until an answer comes; notes the seconds since `since`, and when it took too long.

        What counts is when the request was sent that was answered: how long an answer takes is the
        engine's affair.
        """
        while True:
            outcome = await self.ask(server, content)
            if outcome.kind == "answered":
                took = max(0.0, outcome.sent_at - since)
                self.row.again.append(took)
                self.row.require(took <= within, f"accepted again only {took:.1f} s after relief")
                return took
            if time.monotonic() - since > WEDGED_SECONDS:
                self.row.wedged = True
                self.row.require(False, f"wedged: no answer {WEDGED_SECONDS:g} s after relief "
                                        f"({outcome})")
                return None
            await asyncio.sleep(0.02)

    def note_crossing(self, crossed, changes):
        """The first 503 after the crossing, from a probe's changes of status; returns whether
        there was one, or it was refused already.

        What was refused already is no sample: the server itself may have taken the last page.
        """
        if crossed is None:
            return False
        later = [moment for moment, status in changes if moment >= crossed and status == 503]
        before = [status for moment, status in changes if moment < crossed]
        refused_already = bool(before) and before[-1] == 503
        if later and not refused_already:
            self.row.crossings.append(later[0] - crossed)
        return refused_already or bool(later)

    # --- the end ---

    async def finish_tasks(self):
        """Every request comes to an end by itself; its deadline sees to that."""
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def close(self):
        """Ends everything, by process id, and completes the row. May be called at any moment."""
        row = self.row
        for task in self.tasks:
            task.cancel()
        for probe in self.probes:
            probe.end()
        for server in self.servers:
            row.require(server.alive(), "the server has died")
        for door in self.doors:
            watched = door.end()
            row.door_slowest = max(row.door_slowest, watched["slowest"])
            row.door_faults += watched["faults"]
            row.require(watched["faults"] == 0,
                        f"front door: {watched['faults']} of {watched['polls']} polls failed "
                        f"({watched['first_fault']})")
            row.require(watched["slowest"] <= DOOR_MAX_SECONDS,
                        f"front door: /health took {watched['slowest']:.1f} s")
        row.others_died = sum(not other.alive() for other in [self.bystander, *self.hogs])
        row.require(row.others_died == 0, f"{row.others_died} others in the group died")
        row.require(row.lost == 0, f"{row.lost} requests were lost ({self._first_lost()})")
        row.kills, row.peak = self.kills(), self.group.peak()
        for server in self.servers:
            with contextlib.suppress(OSError):
                wrong = server.stop()
                row.require(not wrong, f"its end: {wrong}")
        self.bystander.end()
        self.group.remove()
        row.seconds = time.monotonic() - self.began

    def kills(self):
        """How many processes the kernel has killed: by the group's count, or by the servers'.

        A worker may have a group of its own in this one, which takes its count along when it goes.
        """
        counted_by_servers = 0
        for server in self.servers:
            if self.pensieve and server.alive():
                counted_by_servers += self.killed_by_kernel(server)
        return max(self.group.kills(), counted_by_servers)

    @staticmethod
    def killed_by_kernel(server):
        """How many engines the kernel has killed, as the server counts them; 0 if it is silent."""
        with contextlib.suppress(OSError, ValueError, httpx.HTTPError):
            return server.status()["worker_ends"].get("killed_by_kernel", 0)
        return 0

    def _first_lost(self):
        return next((str(each) for each in self.row.outcomes if not each.proper), "")

    def outcomes_text(self):
        return ", ".join(f"{count} {kind}" for kind, count
                         in sorted(counted(self.row.outcomes).items()))


@contextlib.contextmanager
def stopped(pid):
    """A process that stands still, as one that waits for a dead disk does."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def small_disk(folder, size_mib):
    """A file system of so many MiB at `folder`, in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size_mib}m,mode=700"  # Nobody else may write there, or it is not used.
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
