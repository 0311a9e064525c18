"""Starts the server on a free port, streams one answer of the default model, shows it, stops it.

The server is this program's child and is ended by its process id on every path.
"""

import http.client
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROMPT = "In one sentence: why is the sky blue?"
START_SECONDS, STOP_SECONDS = 60, 15
LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")


def wait_for_port(server, output):
    """Follows the server's output until it says where it listens."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        text = output.read_text(errors="replace")
        match = LISTENING.search(text)
        if match:
            return int(match.group(1))
        if server.poll() is not None:
            raise SystemExit(f"the server ended with {server.returncode}:\n{text}")
        time.sleep(0.02)
    raise SystemExit(f"the server did not listen within {START_SECONDS} s:\n{text}")


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    content = connection.getresponse().read()
    connection.close()
    return json.loads(content)


def stream_answer(port, model):
    """Prints the answer as it comes; returns headers, usage and the times of its parts."""
    request = json.dumps({"model": model, "max_tokens": 100, "stream": True, "temperature": 0,
                          "messages": [{"role": "user", "content": PROMPT}]})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    sent = time.monotonic()
    connection.request("POST", "/v1/messages", request, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"HTTP {response.status}: {response.read().decode()}")
    first = last = usage = None
    complete = False
    for line in response:
        if not line.startswith(b"data: "):
            continue
        event = json.loads(line.removeprefix(b"data: "))
        if event["type"] == "content_block_delta":
            last = time.monotonic()
            first = first or last
            print(event["delta"]["text"], end="", flush=True)
        elif event["type"] == "message_delta":
            usage = event["usage"]
        elif event["type"] == "message_stop":
            complete = True
        elif event["type"] == "error":
            raise SystemExit(f"\nthe answer ended with an error: {event['error']['message']}")
    print()
    connection.close()
    if not (complete and first and usage):
        raise SystemExit("the answer has no text or no end")
    return response.headers, usage, first - sent, last - first


def show(port):
    model = get(port, "/v1/models")["data"][0]["id"]
    print(f"model: {model}\nprompt: {PROMPT}\n")
    headers, usage, first_seconds, rest_seconds = stream_answer(port, model)
    tokens = usage["output_tokens"]
    # The first token is the end of the prompt's work; the rate is that of those after it.
    rate = f"{(tokens - 1) / rest_seconds:.1f} tokens/s, " if tokens > 1 and rest_seconds else ""
    print(f"\n{tokens} tokens, {rate}first after {first_seconds:.2f} s")
    for name in ("x-memory-status", "x-available-memory-gb", "request-id"):
        if name not in headers:
            raise SystemExit(f"the answer has no header {name}")
        print(f"{name}: {headers[name]}")
    print("health:", json.dumps(get(port, "/health")))


def stop(server):
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    try:
        return server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        return None


def main():
    # A terminal's Ctrl+C or a supervisor's SIGTERM ends this program through its finally.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "output"
        with open(output, "wb") as log:
            server = subprocess.Popen(
                [ROOT / "build/release/pensieve", "serve", "--port", "0", *sys.argv[1:]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            show(wait_for_port(server, output))
        finally:
            code = stop(server)
        if code != 0:
            raise SystemExit(f"the server ended with {code}:\n{output.read_text(errors='replace')}")
    print("smoke: ok")


if __name__ == "__main__":
    main()
