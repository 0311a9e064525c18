"""An HTTP client that says of every request how it ended, in one word.

It works on asyncio's sockets and knows no retries and no redirects, so that what a server really
did is seen: a connection that just ends is `silent`, and no library turns it into something else.
"""

import asyncio
import contextlib
import dataclasses
import json
import socket
import struct
import time

# The ends that a client can work with. `left` is ours: we hung up on purpose.
PROPER = ("answered", "refused", "ended", "left")
# An api_error: the worker crashed, or cannot be had. Clean, but no answer to a shortage of memory;
# the server is not to blame for it where somebody else broke the worker.
FAILED = "failed"
ERROR_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
               404: "not_found_error", 405: "invalid_request_error",
               413: "request_too_large", 431: "invalid_request_error", 500: "api_error",
               503: "overloaded_error", 529: "overloaded_error"}
HEAD_BYTES_MAX = 64 << 10


@dataclasses.dataclass
class Outcome:
    """How one request ended. Times are time.monotonic()."""

    kind: str = "hung"
    status: int = 0
    detail: str = ""
    text: str = ""
    usage: dict = dataclasses.field(default_factory=dict)
    headers: dict = dataclasses.field(default_factory=dict)
    sent_at: float = 0.0
    first_at: float = 0.0  # Of the first text, or of the answer in one piece.
    ended_at: float = 0.0

    @property
    def proper(self):
        return self.kind in PROPER

    def __str__(self):
        seconds = self.ended_at - self.sent_at
        return f"{self.kind} {self.status or ''} after {seconds:.1f} s {self.detail}".strip()


class Malformed(Exception):
    """The server's bytes are not what the protocol says."""


class Silent(Exception):
    """The connection ended before the answer did."""


class Reader:
    """Takes apart what comes on a connection; reads as fast as it is told to."""

    def __init__(self, reader, pace=None):
        self.reader = reader
        self.pace = pace  # (bytes per read, seconds between two reads), or None.
        self.buffer = b""

    async def more(self):
        size = 65536
        if self.pace:
            size = self.pace[0]
            await asyncio.sleep(self.pace[1])
        data = await self.reader.read(size)
        if not data:
            raise Silent(f"the connection ended after {self.buffer[-200:]!r}")
        self.buffer += data

    async def until(self, mark, at_most=HEAD_BYTES_MAX):
        while mark not in self.buffer:
            if len(self.buffer) > at_most:
                raise Malformed(f"no {mark!r} in {len(self.buffer)} bytes")
            await self.more()
        found, self.buffer = self.buffer.split(mark, 1)
        return found

    async def exactly(self, size):
        while len(self.buffer) < size:
            await self.more()
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    async def head(self):
        lines = (await self.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        words = lines[0].split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise Malformed(f"no status line: {lines[0][:100]!r}")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(words[1]), headers

    async def pieces(self, headers):
        """The body as it comes."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                size = int((await self.until(b"\r\n")).split(b";")[0], 16)
                piece = await self.exactly(size)
                if await self.exactly(2) != b"\r\n":
                    raise Malformed("a chunk does not end where it says")
                if size == 0:
                    return
                yield piece
        elif "content-length" in headers:
            yield await self.exactly(int(headers["content-length"]))
        else:
            raise Malformed("a body of unknown length")


def error_fault(status, headers, content, strict=True):
    """What is wrong with an error answer, or an empty text. `strict`: as Pensieve promises it."""
    try:
        parsed = json.loads(content)
    except ValueError:
        return f"no JSON: {content[:120]!r}"
    error = parsed.get("error") if isinstance(parsed, dict) else None
    if not isinstance(error, dict) or not error.get("message"):
        return f"no error object: {content[:120]!r}"
    if not strict:
        return ""
    # A model that cannot be loaded for good is a 503 of type api_error.
    expected = (ERROR_TYPES.get(status), "api_error" if status == 503 else None)
    if parsed.get("type") != "error" or error.get("type") not in expected:
        return f"status {status} with {error.get('type')}"
    missing = [name for name in ("x-memory-status", "x-available-memory-gb", "request-id")
               if not headers.get(name)]
    if missing:
        return f"without {', '.join(missing)}"
    if parsed.get("request_id") != headers["request-id"]:
        return "the request_id is not the header's"
    patient = error["type"] == "overloaded_error"
    if patient and not 1 <= int(headers.get("retry-after", 0)) <= 60:
        return f"retry-after {headers.get('retry-after')}"
    return ""


class Ask:
    """One request to /v1/messages. `strict`: demand all that Pensieve promises of an error."""

    def __init__(self, port, content, *, deadline=60.0, strict=True, pace=None, leave_after=None,
                 receive_buffer=None, gate=None, path="/v1/messages"):
        self.port, self.path = port, path
        self.content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.deadline, self.strict, self.pace = deadline, strict, pace
        self.leave_after = leave_after  # Pieces of text after which we hang up.
        self.receive_buffer = receive_buffer
        self.gate = gate  # An asyncio.Event: nothing is read behind the head until it is set.
        self.outcome = Outcome()
        self.texts = 0
        self.on_text = None

    async def run(self):
        """Returns the Outcome; never raises for what a server does."""
        outcome = self.outcome
        outcome.sent_at = time.monotonic()
        try:
            async with asyncio.timeout(self.deadline):
                await self._exchange()
        except TimeoutError:
            outcome.kind, outcome.detail = "hung", f"no end within {self.deadline:g} s"
        except (Silent, asyncio.IncompleteReadError) as error:
            outcome.kind, outcome.detail = "silent", str(error)
        except (Malformed, ValueError, KeyError) as error:
            outcome.kind, outcome.detail = "malformed", str(error)
        except OSError as error:
            outcome.kind, outcome.detail = "reset", str(error)
        outcome.ended_at = time.monotonic()
        return outcome

    async def _exchange(self):
        peer = socket.socket()
        peer.setblocking(False)
        if self.receive_buffer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", self.port))
            # With a pace the library must not read ahead either: its limit is ours.
            limit = self.pace[0] if self.pace else 1 << 16
            reader, writer = await asyncio.open_connection(sock=peer, limit=limit)
        except BaseException:
            peer.close()
            raise
        try:
            writer.write((f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
                          "Content-Type: application/json\r\nanthropic-version: 2023-06-01\r\n"
                          f"Content-Length: {len(self.content)}\r\n\r\n").encode() + self.content)
            with contextlib.suppress(ConnectionError):  # The answer may be there all the same.
                await writer.drain()
            await self._take(Reader(reader, self.pace))
        finally:
            writer.transport.abort()  # At once, and whatever state it is in.

    async def _take(self, reader):
        outcome = self.outcome
        outcome.status, outcome.headers = await reader.head()
        if self.gate and outcome.status == 200:
            await self.gate.wait()
        if outcome.headers.get("content-type", "").startswith("text/event-stream"):
            await self._take_stream(reader)
            return
        content = b"".join([piece async for piece in reader.pieces(outcome.headers)])
        outcome.first_at = time.monotonic()
        if outcome.status == 200:
            message = json.loads(content)
            if message.get("type") != "message" and "input_tokens" not in message:
                raise Malformed(f"a 200 that is no message: {content[:120]!r}")
            outcome.text = "".join(block.get("text", "") for block in message.get("content", []))
            outcome.usage = message.get("usage", {})
            outcome.kind = "answered"
            return
        fault = error_fault(outcome.status, outcome.headers, content, self.strict)
        if fault:
            raise Malformed(fault)
        error = json.loads(content)["error"]
        outcome.kind = FAILED if error.get("type") == "api_error" else "refused"
        outcome.detail = error["message"]

    async def _take_stream(self, reader):
        """A stream is whole when its last event is its only end, and its last chunk has come."""
        outcome, waiting, ends, begun = self.outcome, b"", [], 0
        async for piece in reader.pieces(outcome.headers):
            waiting += piece
            while b"\n\n" in waiting:
                block, waiting = waiting.split(b"\n\n", 1)
                for line in block.split(b"\n"):
                    if not line.startswith(b"data:"):
                        continue
                    event = json.loads(line[5:])
                    if ends:
                        raise Malformed(f"an event after the end: {event}")
                    begun += event.get("type") == "message_start"
                    if self._take_event(event):
                        ends.append(event)
            if self.leave_after is not None and self.texts >= self.leave_after:
                outcome.kind = "left"
                return
        if not ends:
            raise Silent("the stream ended without message_stop or error")
        if begun != 1:
            raise Malformed(f"{begun} message_start in one stream")
        outcome.kind = "answered" if ends[0]["type"] == "message_stop" else "ended"

    def _take_event(self, event):
        """Returns whether it is an end."""
        outcome, kind = self.outcome, event.get("type")
        if kind == "content_block_delta" and event["delta"].get("text"):
            outcome.first_at = outcome.first_at or time.monotonic()
            outcome.text += event["delta"]["text"]
            self.texts += 1
            if self.on_text:
                self.on_text()
        elif kind == "message_start":
            outcome.usage.update(event["message"].get("usage", {}))
        elif kind == "message_delta":
            outcome.usage.update(event.get("usage", {}))
        elif kind == "error":
            error = event["error"]
            if self.strict and error["type"] not in ("api_error", "overloaded_error",
                                                     "invalid_request_error"):
                raise Malformed(f"a stream error of type {error['type']}")
            outcome.detail = error["message"]
            return True
        return kind == "message_stop"


def counted(outcomes):
    """kind -> how many."""
    kinds = {}
    for outcome in outcomes:
        kinds[outcome.kind] = kinds.get(outcome.kind, 0) + 1
    return kinds


def reset_at_close(connection):
    """close() sends a reset and leaves no TIME_WAIT: ports do not run out."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
