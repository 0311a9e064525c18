"""A client that costs little: it shares the cores with the servers that it measures.

While streams run it only receives and notes the time; what came is taken apart afterwards.
"""

import json
import selectors
import socket
import time

from servers import MODEL

TIMEOUT_SECONDS = 180
LAST_EVENT = b'"message_stop"'
DELTA_EVENT = b"event: content_block_delta"


class Stream:
    """One streaming request to /v1/messages."""

    def __init__(self, port, prompt, tokens_max):
        messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        content = json.dumps({"model": MODEL.stem, "max_tokens": tokens_max, "temperature": 0,
                              "stream": True, "messages": messages}).encode()
        self.request = (f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                        "Content-Type: application/json\r\nanthropic-version: 2023-06-01\r\n"
                        f"Content-Length: {len(content)}\r\n\r\n").encode() + content
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = []  # (time, bytes)
        self.deltas_seen = 0  # Counted while it runs; one cut in two by a read is missed.
        self.complete = False
        self.tail = b""

    def send(self):
        self.sent_at = time.monotonic()
        self.socket.sendall(self.request)

    def read(self):
        """Takes what is there; False at the end of the stream."""
        data = self.socket.recv(1 << 16)
        self.received.append((time.monotonic(), data))
        self.deltas_seen += data.count(DELTA_EVENT)
        self.complete = LAST_EVENT in self.tail + data
        self.tail = data[-len(LAST_EVENT):]
        return bool(data) and not self.complete

    def result(self):
        return Result(self)


class Result:
    """What a stream brought: `deltas` are the times of its pieces of text."""

    def __init__(self, stream):
        self.sent_at = stream.sent_at
        self.deltas, self.text, self.usage, self.stop_reason = [], "", {}, None
        raw = b"".join(data for _, data in stream.received)
        if not raw.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the server answered: {raw[:600].decode(errors='replace')}")
        for moment, event in events(stream.received):
            self._take(moment, event)
        if not self.deltas:
            raise SystemExit(f"an answer without text: {self.usage}, {self.stop_reason}")

    def _take(self, moment, event):
        if event["type"] == "content_block_delta" and event["delta"].get("text"):
            self.deltas.append(moment)
            self.text += event["delta"]["text"]
        elif event["type"] == "message_start":
            self.usage.update(event["message"]["usage"])
        elif event["type"] == "message_delta":
            self.usage.update(event["usage"])
            self.stop_reason = event["delta"]["stop_reason"]
        elif event["type"] == "error":
            raise SystemExit(f"a stream ended with an error: {event['error']['message']}")

    @property
    def first_seconds(self):
        """From the request to the first text."""
        return self.deltas[0] - self.sent_at

    @property
    def output_tokens(self):
        return self.usage["output_tokens"]

    @property
    def input_tokens(self):
        """All of the prompt, from the cache or not."""
        return self.usage.get("input_tokens", 0) + self.usage.get("cache_read_input_tokens", 0)

    @property
    def cached_tokens(self):
        return self.usage.get("cache_read_input_tokens", 0)


def events(received):
    """Yields (time of its last byte, event) from the pieces of a chunked HTTP answer."""
    head, waiting, text, left = True, b"", b"", 0
    for moment, data in received:
        waiting += data
        if head:
            if b"\r\n\r\n" not in waiting:
                continue
            waiting = waiting.split(b"\r\n\r\n", 1)[1]
            head = False
        while waiting:
            if left == 0:
                size, found, rest = waiting.removeprefix(b"\r\n").partition(b"\r\n")
                if not found or size == b"0":
                    break
                left, waiting = int(size, 16), rest
            text += waiting[:left]
            taken = min(left, len(waiting))
            left, waiting = left - taken, waiting[taken:]
        while b"\n\n" in text:
            block, text = text.split(b"\n\n", 1)
            for line in block.split(b"\n"):
                if line.startswith(b"data: "):
                    yield moment, json.loads(line[6:])


class Streams:
    """Runs streams side by side in one thread."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()

    def start(self, stream):
        stream.send()
        self.selector.register(stream.socket, selectors.EVENT_READ, stream)

    def run(self, goes_on=lambda: True):
        """Reads until every stream has ended or `goes_on` says no; then hangs up."""
        while self.selector.get_map() and goes_on():
            ready = self.selector.select(TIMEOUT_SECONDS)
            if not ready:
                raise SystemExit(f"no server sent anything for {TIMEOUT_SECONDS} s")
            for key, _ in ready:
                if not key.data.read():
                    self._drop(key.data)

    def close(self):
        for key in list(self.selector.get_map().values()):
            self._drop(key.data)
        self.selector.close()

    def _drop(self, stream):
        self.selector.unregister(stream.socket)
        stream.socket.close()


def ask(port, prompt, tokens_max):
    """One stream from its beginning to its end."""
    streams = Streams()
    stream = Stream(port, prompt, tokens_max)
    streams.start(stream)
    streams.run()
    streams.close()
    return stream.result()
