"""A worker may end in any way at any moment: the server stays, and each request has one end."""

import os
import re
import signal

import pytest
from harness import (answer, ask, error_of, floors, run, streamed_text, streaming, until_text,
                     wait_until, worker_program, write_script_model)

MIB = 1 << 20
ERRORS = ("api_error", "overloaded_error")
# What the worker does, and how the log must call its end.
DEEDS = [("abort", "crashed"), ("segv", "crashed"), ("exit 3", "crashed"), ("exit 0", "crashed"),
         ("badalloc", "out_of_memory"), ("fail", "crashed"), ("hang", "deadline")]
FAST = {"PENSIEVE_SERVER_HANG_SECONDS": "2"}


def end_of(all_events):
    """The last event of what is left of a stream, which must be its only end."""
    rest = list(all_events)
    ends = [name for name, _ in rest if name in ("error", "message_stop")]
    assert len(ends) == 1, rest
    assert rest[-1][0] == ends[0]
    return rest[-1]


def still_works(server):
    assert answer(server, "script: say still here") == "still here"


@pytest.mark.parametrize("deed,end", DEEDS)
def test_a_worker_that_ends_after_text_was_sent_ends_the_stream_with_an_error(
        serve_script, deed, end):
    server = serve_script(env=FAST)
    with streaming(server, f"script: say one two; {deed}; say three") as all_events:
        until_text(all_events, 1)
        name, data = end_of(all_events)
    assert name == "error"
    assert data["error"]["type"] in ERRORS
    still_works(server)
    server.wait_for_log(rf"\b{end}\b")


@pytest.mark.parametrize("deed,end", DEEDS)
def test_a_worker_that_ends_before_the_first_text_is_replaced_invisibly(
        serve_script, tmp_path, deed, end):
    server = serve_script(env=FAST)
    first = server.worker() if server.workers() else None
    with streaming(server, f"script: once {tmp_path}/mark {deed}; say recovered") as all_events:
        everything = list(all_events)
    assert streamed_text(everything) == "recovered"
    names = [name for name, _ in everything]
    assert names.count("message_start") == names.count("message_stop") == 1
    assert "error" not in names
    assert server.worker() != first
    server.wait_for_log(rf"\b{end}\b")


def test_a_request_in_one_piece_is_replayed_even_in_the_middle(serve_script, tmp_path):
    server = serve_script()
    prompt = f"script: say one; once {tmp_path}/mark abort; say two"
    assert answer(server, prompt) == "one two"


def test_a_request_that_kills_every_worker_gets_one_error_and_no_third_try(serve_script, tmp_path):
    server = serve_script()
    response = ask(server, "script: abort; say never")
    assert response.status_code in (500, 503)
    assert error_of(response)["type"] in ERRORS
    assert len(re.findall(r"worker \d+ ended: crashed", server.log())) == 2
    still_works(server)


def test_kill_9_in_the_middle_of_a_stream_is_an_error_event_and_the_next_request_works(
        serve_script):
    server = serve_script()
    with streaming(server, "script: delay 20; endless x") as all_events:
        until_text(all_events, 3)
        os.kill(server.worker(), signal.SIGKILL)
        name, data = end_of(all_events)
    assert name == "error"
    assert data["error"]["type"] in ERRORS
    still_works(server)
    server.wait_for_log(r"\bkilled\b")


def test_kill_9_before_the_first_text_is_invisible(serve_script, tmp_path):
    server = serve_script()
    mark = tmp_path / "mark"
    prompt = f"script: once {mark} slow 20000; say after all"
    with streaming(server, prompt) as all_events:
        assert next(all_events)[0] == "message_start"
        wait_until(mark.exists, 20, "the worker being busy")
        os.kill(server.worker(), signal.SIGKILL)
        assert streamed_text(list(all_events)) == "after all"
    server.wait_for_log(r"\bkilled\b")


def test_kill_9_ends_every_stream_of_the_worker_once(serve_script):
    server = serve_script()
    prompt = "script: delay 20; endless x"
    with streaming(server, prompt) as a, streaming(server, prompt) as b, \
            streaming(server, prompt) as c:
        for running in (a, b, c):
            until_text(running)
        os.kill(server.worker(), signal.SIGKILL)
        assert {end_of(running)[0] for running in (a, b, c)} == {"error"}
    assert server.running_requests() == 0
    still_works(server)


def test_a_slow_worker_is_not_taken_for_a_hanging_one(serve_script):
    server = serve_script(env=FAST)
    first = server.worker() if server.workers() else None
    assert answer(server, "script: slow 4000; say slow but sure") == "slow but sure"
    assert first in (None, server.worker())
    assert "deadline" not in server.log()


@pytest.mark.parametrize("faulty,end", [
    ("head -c 100000 /dev/urandom >&3; sleep 60", "protocol_error"),
    ("printf 'GET / HTTP/1.1 nothing like a frame' >&3; sleep 60", "protocol_error"),
    ("exit 7", "crashed")])
def test_a_worker_that_is_no_worker_is_ended_and_replaced_by_a_better_one(
        serve_script, tmp_path, faulty, end):
    program = worker_program(tmp_path, faulty)
    server = serve_script(env={"PENSIEVE_WORKER_PROGRAM": str(program)})
    still_works(server)
    (tmp_path / "faulty").touch()
    os.kill(server.worker(), signal.SIGKILL)
    response = ask(server, "script: say hi")
    assert response.status_code in (500, 503)
    assert error_of(response)["type"] in ERRORS
    server.wait_for_log(rf"\b{end}\b")
    assert server.http.get("/health").status_code == 200
    (tmp_path / "faulty").unlink()
    wait_until(lambda: ask(server, "script: say hi").status_code == 200, 20, "an answer again")


def test_a_worker_program_that_is_missing_is_named(tmp_path):
    model = write_script_model(tmp_path)
    ended = run(tmp_path, "serve", "--model", model, "--port", "0",
                env={"PENSIEVE_WORKER_PROGRAM": str(tmp_path / "nothing")})
    assert ended.returncode == 4
    assert f"{tmp_path}/nothing" in ended.stderr


def test_the_kernels_out_of_memory_kill_is_told_apart_and_survived(serve_script, memory_group):
    group = memory_group(256 * MIB)
    # Floors so low that the guard does not act before the kernel does.
    server = serve_script(env=floors(0.004, 0.003, 0.002, 0.001), group=group)
    with streaming(server, "script: say one; oom; say never") as all_events:
        until_text(all_events)
        name, data = end_of(all_events)
    assert name == "error"
    assert data["error"]["type"] in ERRORS
    server.wait_for_log(r"\bkilled_by_kernel\b")
    wait_until(lambda: ask(server, "script: say hi").status_code == 200, 20, "an answer again")
    assert server.process.poll() is None


def test_a_request_that_always_runs_out_of_memory_gets_an_overloaded_error(
        serve_script, memory_group):
    group = memory_group(256 * MIB)
    server = serve_script(env=floors(0.004, 0.003, 0.002, 0.001), group=group)
    response = ask(server, "script: oom; say never")
    assert response.status_code == 503
    assert error_of(response)["type"] == "overloaded_error"
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert server.process.poll() is None
