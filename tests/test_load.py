"""Many clients, slow clients, and clients that are none: the gateway stays small and answers.

The figures are printed at the end of the run. What is bounded here is what one attacker on loopback
can do; the bounds stand in ARCHITECTURE.md's table of limits.
"""

import asyncio
import contextlib
import os
import resource
import socket
import threading
import time

import pytest
from harness import SMOLLM2, ask, body, open_descriptors, resident_bytes, wait_until
from wire import Ask, counted, reset_at_close

MIB = 1 << 20
HEALTH_MAX_SECONDS = 1.0
STREAMS = 1000
OPENED_AND_CLOSED = 100_000
BODY_BYTES = 100 * MIB


@pytest.fixture(autouse=True)
def descriptors():
    """A thousand clients need as many descriptors here."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Watch:
    """What an attack does to the server: its memory, its descriptors, and others' waiting time."""

    def __init__(self, server):
        self.server = server
        ask(server, "script: say hi")  # The first request pays for what stays.
        self.resident = self.most = resident_bytes(server.pid)
        self.descriptors = open_descriptors(server.pid)
        self.slowest = 0.0
        self.polls = 0
        self.failure = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look)

    def _look(self):
        try:
            self._poll()
        except (OSError, AssertionError) as error:
            self.failure = error

    def _poll(self):
        while not self.over.wait(0.02):
            began = time.monotonic()
            connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=20)
            with connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                                   b"Connection: close\r\n\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.most = max(self.most, resident_bytes(self.server.pid))
            self.polls += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    @property
    def growth(self):
        return self.most - self.resident

    def check(self, measured, what, growth_max, kept_max):
        """After the attack: everybody was answered in time, and nothing stays."""
        assert self.failure is None, f"/health after {self.polls} answers: {self.failure!r}"
        assert self.polls > 0, "the server was never asked"
        wait_until(lambda: open_descriptors(self.server.pid) <= self.descriptors, 10,
                   f"descriptors back at {self.descriptors}")
        ask(self.server, "script: say hi")
        kept = resident_bytes(self.server.pid) - self.resident
        measured(f"{what}: gateway {self.resident // 1024} KiB, {self.growth // 1024:+} KiB at "
                 f"most (bound {growth_max // 1024}), {kept // 1024:+} KiB kept (bound "
                 f"{kept_max // 1024}); slowest of {self.polls} /health "
                 f"{self.slowest * 1000:.0f} ms")
        assert self.slowest <= HEALTH_MAX_SECONDS
        assert self.growth <= growth_max
        assert kept <= kept_max


@pytest.mark.timeout(180)
def test_a_thousand_slow_streams_at_once_are_all_served_and_others_too(serve_script, measured):
    server = serve_script(env={"PENSIEVE_PARALLEL": "64", "PENSIEVE_SERVER_QUEUE_MAX": "4096"})
    # 15 KB of text each: their clients read the head, wait for each other, and read on slowly.
    prompt = "script: repeat 250 " + "x" * 60
    others = []

    def waiting():
        return server.http.get("/v1/pensieve/ps").json()["models"][0]["requests_waiting"]

    async def all_streams():
        gate, tasks = asyncio.Event(), []
        for number in range(STREAMS):
            # As fast as the engine takes them up: a worker lets 256 wait.
            while number % 20 == 0 and await asyncio.to_thread(waiting) > 100:
                await asyncio.sleep(0.02)
            streams.append(Ask(server.port, body(prompt, stream=True, max_tokens=1000),
                               deadline=150, pace=(4096, 0.2), receive_buffer=4096, gate=gate))
            tasks.append(asyncio.ensure_future(streams[-1].run()))
        while sum(stream.outcome.status == 200 for stream in streams) < STREAMS:
            done = [str(task.result()) for task in tasks if task.done()]
            assert not done, done[:3]
            await asyncio.sleep(0.1)
        others.append(await Ask(server.port, body("script: say hi"), deadline=20).run())
        gate.set()
        return await asyncio.gather(*tasks)

    streams = []
    with Watch(server) as watch:
        outcomes = asyncio.run(all_streams())
    assert counted(outcomes) == {"answered": STREAMS}
    assert {len(outcome.text) for outcome in outcomes} == {250 * 61 - 1}
    assert others[0].kind == "answered", others[0]
    assert others[0].ended_at - others[0].sent_at < 5
    watch.check(measured, f"{STREAMS} slow streams", 96 * MIB, 32 * MIB)


def opened(port, count, source="127.0.0.1"):
    for _ in range(count):
        connection = socket.socket()
        connection.bind((source, 0))
        connection.connect(("127.0.0.1", port))
        reset_at_close(connection)
        yield connection


@pytest.mark.parametrize("what", ["head", "body"])
def test_requests_that_come_byte_by_byte_keep_nobody_else_out(serve_script, measured, what):
    server = serve_script()
    head = (b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n" +
            b"X-Padding: " + b"p" * 500)
    begin = b"" if what == "head" else head + b"\r\n\r\n"
    rest = head if what == "head" else b"{" + b" " * 500
    with Watch(server) as watch:
        slow = list(opened(server.port, 2500))  # More than the server takes at once.
        try:
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.sendall(begin)
            until = time.monotonic() + 4
            position = 0
            while time.monotonic() < until:
                for connection in slow:
                    with contextlib.suppress(OSError):
                        connection.send(rest[position:position + 1])
                position += 1
                began = time.monotonic()
                assert ask(server, "script: say hi").status_code == 200
                assert time.monotonic() - began < 2
        finally:
            for connection in slow:
                connection.close()
    watch.check(measured, f"2,500 slow {what}s", 64 * MIB, 32 * MIB)


def send_body(port, chunked, answers):
    """A body of 100 MB as fast as it goes; notes the status line, or that the server closed."""
    piece = b"x" * MIB
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % BODY_BYTES
        connection.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\n" + length +
                           b"\r\n\r\n")
        try:
            for _ in range(BODY_BYTES // MIB):
                connection.sendall(b"%x\r\n" % MIB + piece + b"\r\n" if chunked else piece)
        except OSError:
            pass  # It has seen enough.
        status = b""
        with contextlib.suppress(OSError):
            status = connection.recv(65536).split(b"\r\n")[0]
        answers.append(status)


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_of_100_mb_are_refused_and_never_held(serve_script, measured, chunked):
    server = serve_script()
    answers = []
    with Watch(server) as watch:
        senders = [threading.Thread(target=send_body, args=(server.port, chunked, answers))
                   for _ in range(24)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    assert len(answers) == 24
    assert {status.split(b" ")[1] for status in answers} <= {b"413", b"529", b"503"}, answers
    watch.check(measured, f"24 bodies of 100 MB, {'in chunks' if chunked else 'with a length'}",
                256 * MIB, 32 * MIB)


@pytest.mark.timeout(180)
def test_a_hundred_thousand_connections_opened_and_closed_leave_nothing(serve_script, measured):
    server = serve_script()
    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    began = time.monotonic()
    with Watch(server) as watch:
        for number in range(OPENED_AND_CLOSED):
            # Several sources: none of them runs out of ports, whatever the server keeps.
            source = f"127.0.0.{1 + number % 8}"
            for connection in opened(server.port, 1, source):
                with connection:
                    if number % 10 == 0:
                        connection.sendall(request)
                        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
                    elif number % 10 == 1:
                        connection.sendall(request[:20])
    measured(f"{OPENED_AND_CLOSED} connections in {time.monotonic() - began:.0f} s")
    watch.check(measured, f"{OPENED_AND_CLOSED} connections", 32 * MIB, 16 * MIB)


GARBAGE = [
    b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 20_000,
    b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + os.urandom(4 * MIB),
    b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}" * 5_000,
    b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n" +
    b"1\r\nx\r\n" * 500_000,
    b"\0" * 4 * MIB,
]


def test_pipelined_garbage_that_nobody_reads_the_answers_of_is_bounded(serve_script, measured):
    server = serve_script()
    with Watch(server) as watch:
        connections = list(opened(server.port, 60))
        try:
            for number, connection in enumerate(connections):
                connection.setblocking(False)
                left = memoryview(GARBAGE[number % len(GARBAGE)])
                with contextlib.suppress(OSError):  # It is full, or the server has had enough.
                    while left:
                        left = left[connection.send(left[:MIB]):]
            time.sleep(2)
            assert ask(server, "script: say hi").status_code == 200
        finally:
            for connection in connections:
                connection.close()
    watch.check(measured, "60 connections of garbage", 64 * MIB, 16 * MIB)


@pytest.mark.timeout(120)
def test_clients_that_never_read_endless_answers_hold_a_bounded_part(serve_script, measured):
    clients = 8
    server = serve_script("--context", 16_000_000, "--parallel", clients,
                          model={"context_tokens": 16_000_000})
    content = body("script: endless " + "y" * 60, stream=True, max_tokens=10_000_000)

    async def all_clients():
        gate = asyncio.Event()
        streams = [Ask(server.port, content, deadline=100, receive_buffer=4096, gate=gate)
                   for _ in range(clients)]
        tasks = [asyncio.ensure_future(stream.run()) for stream in streams]
        while not all(stream.outcome.status == 200 for stream in streams):
            await asyncio.sleep(0.05)
        # What a client does not take ends its request, so that the engine is free for others.
        await asyncio.to_thread(wait_until, lambda: server.running_requests() == 0, 50,
                                "an engine that is free again")
        assert (await Ask(server.port, body("script: say hi"), deadline=20).run()).proper
        gate.set()
        return await asyncio.gather(*tasks)

    with Watch(server) as watch:
        outcomes = asyncio.run(all_clients())
    assert counted(outcomes) == {"ended": clients}, [str(each) for each in outcomes]
    assert watch.growth > 2 * clients * MIB, "the gateway held nothing; nothing was proved"
    watch.check(measured, f"{clients} clients that read nothing", 16 * clients * MIB, 64 * MIB)


def test_what_one_connection_costs_is_small(serve_script, measured):
    server = serve_script()
    before = resident_bytes(server.pid)
    idle = list(opened(server.port, 1500))
    wait_until(lambda: open_descriptors(server.pid) > 1500, 20, "1,500 connections")
    time.sleep(0.2)
    each = (resident_bytes(server.pid) - before) / 1500
    for connection in idle:
        connection.close()
    measured(f"an idle connection: {each / 1024:.1f} KiB")
    assert each <= 8 * 1024


def test_a_real_model_answers_beside_a_flood_of_connections(serve):
    server = serve("--model", SMOLLM2, "--context", "1024", "--threads", "1")
    over = threading.Event()

    def flood():
        while not over.is_set():
            for connection in opened(server.port, 50):
                connection.close()
    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        response = server.http.post("/v1/messages", json={
            "model": "claude-sonnet-4-5", "max_tokens": 8,
            "messages": [{"role": "user", "content": "Say hello."}]})
        assert response.status_code == 200
    finally:
        over.set()
        flooding.join()
