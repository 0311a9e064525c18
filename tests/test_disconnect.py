"""A client that hangs up frees its place at once, whatever the worker is doing for it."""

import json
import socket
import time

import pytest
from harness import answer, resident_bytes, streaming, until_text, wait_until

# Longer than any of these tests may take, if nobody noticed the hang-up.
LONG_PROMPT = "script: say done; " + "# " * 4000
SLOW_PREFILL = {"prefill_us_per_token": 5_000}


def free_within(server, seconds):
    started = time.monotonic()
    wait_until(lambda: server.running_requests() == 0, seconds, "a freed place")
    return time.monotonic() - started


def test_hanging_up_while_text_comes_frees_the_place(scripted):
    with streaming(scripted, "script: delay 20; endless x") as all_events:
        until_text(all_events, 3)
        wait_until(lambda: scripted.running_requests() == 1, 5, "a running request")
    assert free_within(scripted, 5) < 2


def test_hanging_up_between_two_slow_tokens_frees_the_place(scripted):
    with streaming(scripted, "script: say one; delay 900; endless x") as all_events:
        until_text(all_events, 1)
    assert free_within(scripted, 3) < 2


def test_hanging_up_while_the_prompt_is_processed_frees_the_place(serve_script):
    server = serve_script(model=SLOW_PREFILL)
    with streaming(server, LONG_PROMPT) as all_events:
        assert next(all_events)[0] == "message_start"
        wait_until(lambda: server.running_requests() == 1, 5, "a running request")
    # One step is one chunk of the prompt, which is kept short in time.
    assert free_within(server, 5) < 3


@pytest.mark.parametrize("prompt", ["script: delay 20; endless x", LONG_PROMPT])
def test_hanging_up_on_an_answer_in_one_piece_frees_the_place(serve_script, prompt):
    server = serve_script(model=SLOW_PREFILL if prompt is LONG_PROMPT else {})
    content = json.dumps({"model": "test", "max_tokens": 100_000,
                          "messages": [{"role": "user", "content": prompt}]}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                           b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
        wait_until(lambda: server.running_requests() == 1, 10, "a running request")
    assert free_within(server, 5) < 3


def test_hanging_up_while_waiting_leaves_the_queue(serve_script):
    server = serve_script("--parallel", "1")
    with streaming(server, "script: delay 20; endless x") as running:
        until_text(running)
        with streaming(server, "script: endless y") as waiting:
            assert next(waiting)[0] == "message_start"
    free_within(server, 3)
    assert answer(server, "script: say free") == "free"


def test_a_reader_that_never_reads_stops_neither_the_others_nor_grows_the_gateway(serve_script):
    server = serve_script(model={"context_tokens": 400_000})
    content = json.dumps({"model": "test", "max_tokens": 300_000, "stream": True, "messages": [
        {"role": "user", "content": "script: endless " + "x" * 60}]}).encode()
    assert answer(server, "script: say warm") == "warm"
    before = resident_bytes(server.pid)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                           b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
        wait_until(lambda: server.running_requests() == 1, 10, "a running request")
        for _ in range(20):
            assert answer(server, "script: repeat 50 other").startswith("other")
        assert resident_bytes(server.pid) - before < 16 << 20
    free_within(server, 10)
