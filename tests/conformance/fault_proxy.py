"""A proxy between a client and the server that counts requests and answers some of them itself.

What a client does after an error can only be seen from the server's side. The answers that the
real server cannot be brought to give at will (a bad gateway, a reset in the middle of a call) are
given here; all other requests go on to the real one.
"""

import contextlib
import dataclasses
import http.client
import http.server
import io
import json
import socket
import struct
import threading
import time

FORWARD_SECONDS = 120
QUIET_SECONDS = 20  # The longest time that a request may take to arrive.
# What was written should be read, also by a client on a busy machine, before a reset overtakes it.
READING_SECONDS = 0.3


@dataclasses.dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    seconds: float  # Monotonic.
    path: str
    headers: dict
    body: dict


@dataclasses.dataclass(frozen=True)
class Reply:
    """A whole answer; `body` is JSON."""

    status: int
    body: dict
    headers: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Stream:
    """A streamed answer of (event, data) pairs that ends in order, or with a reset.

    A text among the events is written as it is: a comment, or a frame without the event's name.
    """

    events: tuple
    resets: bool = False


@dataclasses.dataclass(frozen=True)
class Reset:
    """The connection is reset before a byte of an answer."""


@dataclasses.dataclass(frozen=True)
class Silence:
    """No byte of an answer; the connection stays until the client hangs up."""


@dataclasses.dataclass(frozen=True)
class Counted:
    """A request to count tokens, which always goes on to the server, and what that answered."""

    body: dict
    status: int
    answer: bytes


def error(status, kind, message="made up", **headers):
    """An error of the API; an underscore in a header's name stands for a hyphen."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_proxy"}
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return Reply(status, body, {"request-id": "req_proxy", **named})


def message_start():
    usage = {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 0,
             "cache_read_input_tokens": 0}
    return ("message_start", {"type": "message_start", "message": {
        "id": "msg_proxy", "type": "message", "role": "assistant", "model": "test", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": usage}})


def text_block(text, index=0, stops=True):
    """The events of a block of text; without its stop where `stops` is false."""
    events = [
        ("content_block_start", {"type": "content_block_start", "index": index,
                                 "content_block": {"type": "text", "text": ""}}),
        ("content_block_delta", {"type": "content_block_delta", "index": index,
                                 "delta": {"type": "text_delta", "text": text}})]
    if stops:
        events.append(("content_block_stop", {"type": "content_block_stop", "index": index}))
    return events


def tool_block(name, fragments, index=0, stops=True):
    """The events of a call whose input comes in `fragments` of JSON; `stops` as in text_block()."""
    start = ("content_block_start", {
        "type": "content_block_start", "index": index,
        "content_block": {"type": "tool_use", "id": "toolu_proxy", "name": name, "input": {}}})
    deltas = [("content_block_delta", {
        "type": "content_block_delta", "index": index,
        "delta": {"type": "input_json_delta", "partial_json": part}}) for part in fragments]
    stop = ("content_block_stop", {"type": "content_block_stop", "index": index})
    return [start, *deltas, *([stop] if stops else [])]


def error_event(kind, message="made up"):
    return ("error", {"type": "error", "error": {"type": kind, "message": message},
                      "request_id": "req_proxy"})


def frame(name, data):
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def end(reason="end_turn"):
    return [("message_delta", {"type": "message_delta",
                               "delta": {"stop_reason": reason, "stop_sequence": None},
                               "usage": {"input_tokens": 1, "output_tokens": 2}}),
            ("message_stop", {"type": "message_stop"})]


class FaultProxy:
    """Listens on loopback. Each POST to /v1/messages takes the next of `answers`, then `then`.

    None forwards to the server. seen() has those requests in the order of their arrival, and
    counted() those to /v1/messages/count_tokens in the order of their answers.
    Thread-safety: all may be called while clients speak.
    """

    def __init__(self, server_port):
        self.server_port = server_port
        self._lock = threading.Lock()
        self._answers = []
        self._then = None
        self._seen = []
        self._counted = []
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    def plan(self, *answers, then=None):
        """What comes next; what was seen until now is forgotten."""
        with self._lock:
            self._answers, self._then = list(answers), then
            self._seen, self._counted = [], []

    def seen(self):
        with self._lock:
            return list(self._seen)

    def counted(self):
        with self._lock:
            return list(self._counted)

    def gaps(self):
        """Seconds between the arrivals of the requests."""
        times = [request.seconds for request in self.seen()]
        return [later - earlier for earlier, later in zip(times, times[1:])]

    def next_answer(self, request):
        with self._lock:
            self._seen.append(request)
            return self._answers.pop(0) if self._answers else self._then

    def note_count(self, counted):
        with self._lock:
            self._counted.append(counted)

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request per connection: the answer ends where the connection does."""

    owner = None
    protocol_version = "HTTP/1.1"
    timeout = QUIET_SECONDS

    def log_message(self, *arguments):
        """Nothing: what matters is in `seen`."""

    def do_GET(self):
        self._forward(b"")

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        answer = None
        path = self.path.split("?")[0]
        if path == "/v1/messages":
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = self.owner.next_answer(
                Seen(time.monotonic(), self.path, headers, json.loads(body)))
        self.close_connection = True
        if path == "/v1/messages/count_tokens":
            self.owner.note_count(Counted(json.loads(body), *self._forward(body)))
        elif answer is None:
            self._forward(body)
        elif isinstance(answer, Reply):
            self._reply(answer)
        elif isinstance(answer, Stream):
            self._stream(answer)
        elif isinstance(answer, Silence):
            with contextlib.suppress(OSError):  # A client that does not hang up ends by `timeout`.
                self.connection.recv(1)
        else:
            self._reset()

    def _head(self, status, headers):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("connection", "close")
        self.end_headers()

    def _reply(self, answer):
        body = json.dumps(answer.body).encode()
        self._head(answer.status, [("content-type", "application/json"),
                                   ("content-length", str(len(body))), *answer.headers.items()])
        self.wfile.write(body)

    def _stream(self, answer):
        self._head(200, [("content-type", "text/event-stream; charset=utf-8"),
                         ("request-id", "req_proxy")])
        for event in answer.events:
            self.wfile.write((event if isinstance(event, str) else frame(*event)).encode())
            self.wfile.flush()
        if answer.resets:
            time.sleep(READING_SECONDS)
            self._reset()

    def _reset(self):
        # Lingering for no time makes close() a reset; the dup'ed files must be closed as well.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
        self.wfile = io.BytesIO()  # The base class has the last word, and nobody hears it.

    def _forward(self, body):
        """Status and body of the server's answer, as far as the client let it come."""
        self.close_connection = True
        status, parts = None, []
        server = http.client.HTTPConnection("127.0.0.1", self.owner.server_port,
                                            timeout=FORWARD_SECONDS)
        headers = {name: value for name, value in self.headers.items()
                   if name.lower() not in ("host", "connection")}
        try:
            server.request(self.command, self.path, body or None, headers)
            answer = server.getresponse()
            kept = [(name, value) for name, value in answer.getheaders()
                    if name.lower() not in ("transfer-encoding", "connection", "keep-alive")]
            status = answer.status
            self._head(status, kept)
            while part := answer.read1(1 << 16):
                parts.append(part)
                self.wfile.write(part)
                self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            pass  # The client hung up: the server sees it by the close below.
        finally:
            server.close()
        return status, b"".join(parts)
