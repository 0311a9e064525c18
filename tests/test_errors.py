"""The table of errors: what each status carries, so that clients repeat what may pass, and no more.

Clients repeat 408, 409, 429 and everything from 500 on, whatever the body says, unless
`x-should-retry` is there; Claude Code repeats an overloaded_error even then. So what will not pass
is a 4xx, or an api_error with `x-should-retry: false`.
"""

import json
import os
import re
import signal

import pytest
from harness import ask, body, error_of, raw, streaming, until_text, wait_until, worker_program

REQUEST_ID = re.compile(r"^req_[0-9A-Za-z]{24}$")
HEAD = b"Host: 127.0.0.1\r\nConnection: close\r\n"


class RawResponse:
    """An answer to bytes that no HTTP library would send."""

    def __init__(self, answer):
        head, self.content = answer.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        self.status_code = int(lines[0].split()[1])
        self.headers = {name.lower(): value for name, value in
                        (line.split(": ", 1) for line in lines[1:])}

    def json(self):
        return json.loads(self.content)


def is_refused_for_good(response, status, kind):
    assert response.status_code == status, response.content
    assert error_of(response)["type"] == kind
    assert REQUEST_ID.match(response.headers["request-id"])
    assert response.headers.get("x-should-retry") in (None, "false")
    assert "retry-after" not in response.headers
    if status >= 500 or status == 401:
        assert response.headers["x-should-retry"] == "false"
        assert kind != "overloaded_error"


def may_be_repeated(response, status, kind):
    assert response.status_code == status, response.content
    assert error_of(response)["type"] == kind
    assert REQUEST_ID.match(response.headers["request-id"])
    assert response.headers.get("x-should-retry") in (None, "true")
    assert 1 <= int(response.headers["retry-after"]) <= 60


@pytest.mark.parametrize("method,path,content,status,kind", [
    ("POST", "/v1/messages", b"{", 400, "invalid_request_error"),
    ("POST", "/v1/messages", b'{"model":"test"}', 400, "invalid_request_error"),
    ("POST", "/v1/messages/count_tokens", b"[]", 400, "invalid_request_error"),
    ("GET", "/v1/models?limit=0", None, 400, "invalid_request_error"),
    ("GET", "/v1/models/none", None, 404, "not_found_error"),
    ("GET", "/nothing", None, 404, "not_found_error"),
    ("PUT", "/v1/files", b"{}", 404, "not_found_error"),
    ("GET", "/v1/messages", None, 405, "invalid_request_error"),
    ("DELETE", "/v1/models", None, 405, "invalid_request_error")])
def test_what_is_wrong_with_a_request_is_never_worth_a_second_try(
        scripted, method, path, content, status, kind):
    is_refused_for_good(scripted.http.request(method, path, content=content), status, kind)


@pytest.mark.parametrize("request_bytes,status,kind", [
    (b"nonsense\r\n\r\n", 400, "invalid_request_error"),
    (b"GET / HTTP/9.9\r\n" + HEAD + b"\r\n", 400, "invalid_request_error"),
    (b"GET / HTTP/1.1\r\nno colon here\r\n\r\n", 400, "invalid_request_error"),
    (b"POST /v1/messages HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400, "invalid_request_error"),
    (b"POST /v1/messages HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nnot hex\r\n",
     400, "invalid_request_error"),
    (b"POST /v1/messages HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413, "request_too_large"),
    (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 431, "invalid_request_error"),
    (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431, "invalid_request_error")])
def test_what_is_no_proper_http_is_answered_like_every_other_error(
        scripted, request_bytes, status, kind):
    is_refused_for_good(RawResponse(raw(scripted, request_bytes)), status, kind)


def test_a_wrong_key_and_a_foreign_page_are_refused_for_good(serve_script):
    server = serve_script(env={"PENSIEVE_SERVER_API_KEY": "sesame"})
    is_refused_for_good(ask(server, "hi"), 401, "authentication_error")
    is_refused_for_good(server.http.get("/v1/models", headers={"Origin": "http://evil.example"}),
                        403, "permission_error")


def test_message_threads_are_refused_in_the_words_that_the_sdks_know(scripted):
    error = error_of(ask(scripted, "hi", thread={"type": "create"}))
    assert error == {"type": "invalid_request_error",
                     "message": "This server does not support message threads",
                     "details": {"error_code": "thread_unsupported_request",
                                 "unsupported": ["thread"]}}


def test_a_full_queue_and_short_memory_may_pass(serve_script, serve_short_of_memory):
    server = serve_script("--parallel", "1", env={"PENSIEVE_SERVER_QUEUE_MAX": "1"})
    with streaming(server, "script: delay 20; endless x") as first:
        until_text(first)
        with streaming(server, "script: say second") as waiting:
            next(waiting)
            may_be_repeated(ask(server, "hi"), 529, "overloaded_error")
    for level in ("Critical", "Emergency"):
        may_be_repeated(ask(serve_short_of_memory(level), "hi"), 503, "overloaded_error")


@pytest.mark.parametrize("faulty,check,kind", [
    ("kill -9 $$", may_be_repeated, "overloaded_error"),
    ("exit 91", may_be_repeated, "overloaded_error"),  # Out of memory.
    ("exit 7", is_refused_for_good, "api_error")])
def test_a_worker_that_ends_while_it_loads_is_told_by_how_it_ended(
        serve_script, tmp_path, faulty, check, kind):
    server = serve_script(env={"PENSIEVE_WORKER_PROGRAM": str(worker_program(tmp_path, faulty))})
    (tmp_path / "faulty").touch()
    os.kill(server.worker(), signal.SIGKILL)
    check(ask(server, "hi"), 503, kind)
    check(server.http.post("/v1/messages/count_tokens", json=body("hi")), 503, kind)
    (tmp_path / "faulty").unlink()
    wait_until(lambda: ask(server, "script: say hi").status_code == 200, 20, "an answer again")


def test_a_server_whose_first_worker_is_killed_stays_and_loads_with_the_next_request(
        serve_script, tmp_path):
    (tmp_path / "faulty").touch()
    program = worker_program(tmp_path, "kill -9 $$")
    server = serve_script(env={"PENSIEVE_WORKER_PROGRAM": str(program)})
    may_be_repeated(ask(server, "hi"), 503, "overloaded_error")
    (tmp_path / "faulty").unlink()
    wait_until(lambda: ask(server, "script: say hi").status_code == 200, 20, "an answer")


def test_what_nobody_knows_is_never_a_400(scripted):
    response = scripted.http.post(
        "/v1/messages?beta=true&made_up=1",
        json=body("script: say hi", made_up={"deep": [1]}, thinking={"type": "adaptive"},
                  context_management={"edits": [{"type": "clear_thinking_20251015"}]},
                  safeguards=[{"type": "x"}], output_config={"effort": "xhigh"}),
        headers={"anthropic-beta": "made-up-2031-01-01,other", "anthropic-version": "2031-01-01",
                 "x-made-up": "yes"})
    assert response.status_code == 200
