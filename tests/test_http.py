"""HTTP around the API: headers, routes, errors, connections, and who may ask."""

import http.client
import json
import re

import pytest
from harness import ask, body, error_of, raw

REQUEST_ID = re.compile(r"^req_[0-9A-Za-z]{24}$")
# Every route, and what it answers to a plain request.
ROUTES = [
    ("GET", "/", None, 200), ("HEAD", "/", None, 200), ("GET", "/health", None, 200),
    ("GET", "/v1/models", None, 200), ("GET", "/v1/pensieve/ps", None, 200),
    ("POST", "/v1/messages", body("script: say hi"), 200),
    ("POST", "/v1/messages", body("script: say hi", stream=True), 200),
    ("POST", "/v1/messages/count_tokens", {"model": "test", "messages": [
        {"role": "user", "content": "hi"}]}, 200),
    ("POST", "/v1/messages", {"model": "test"}, 400),
    ("GET", "/v1/models/nothing-like-it", None, 404), ("GET", "/v1/nothing", None, 404),
    ("GET", "/v1/messages", None, 405),
]


# --- headers --------------------------------------------------------------------------------------

@pytest.mark.parametrize("method,path,content,status", ROUTES)
def test_every_response_has_a_request_id_and_both_memory_headers(scripted, method, path, content,
                                                                status):
    response = scripted.http.request(method, path, json=content)
    assert response.status_code == status
    assert REQUEST_ID.match(response.headers["request-id"])
    assert response.headers["x-memory-status"] in ("Safe", "Caution", "Warning")
    assert re.fullmatch(r"\d+\.\d\d", response.headers["x-available-memory-gb"])


def test_request_ids_are_never_the_same(scripted):
    ids = {scripted.http.get("/health").headers["request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_a_head_request_for_the_root_is_empty(scripted):
    response = scripted.http.head("/")
    assert response.status_code == 200
    assert response.content == b""


# --- errors ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", [
    "/v1/messages/batches/x/y", "/v1/files", "/v1/complete", "/v1/messages/cache_touch", "/api/me",
    "/v1/messagesx", "//v1/messages", "/health/x"])
def test_what_is_not_there_is_a_404_in_json(scripted, path):
    for method in ("GET", "POST"):
        response = scripted.http.request(method, path, content=b"{}" if method == "POST" else None)
        assert response.status_code == 404
        assert error_of(response)["type"] == "not_found_error"


@pytest.mark.parametrize("method,path,allow", [
    ("GET", "/v1/messages", "POST"), ("DELETE", "/v1/messages", "POST"),
    ("GET", "/v1/messages/count_tokens", "POST"), ("POST", "/v1/models", "GET"),
    ("POST", "/health", "GET")])
def test_a_wrong_method_is_a_405_that_names_the_right_one(scripted, method, path, allow):
    response = scripted.http.request(method, path)
    assert response.status_code == 405
    assert allow in response.headers["allow"]
    assert error_of(response)["type"] == "invalid_request_error"


BAD = [
    (b"not json", "JSON"), (b"[]", "object"), (b"\xff\xfe", "JSON"), (b'{"model":"test"', "JSON"),
    ({"model": None}, "model"), ({"model": 3}, "model"), ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"), ({"max_tokens": "x"}, "max_tokens"),
    ({"messages": []}, "messages"), ({"messages": "x"}, "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0"),
    ({"messages": [{"role": "user"}]}, "messages.0"),
    ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "messages.0.content.0"),
    ({"temperature": 3}, "temperature"), ({"top_p": -1}, "top_p"), ({"stream": "yes"}, "stream"),
    ({"stop_sequences": "x"}, "stop_sequences"), ({"mcp_servers": [{}]}, "mcp_servers"),
    ({"container": "x"}, "container"),
]


@pytest.mark.parametrize("change,named", BAD)
def test_a_bad_request_is_a_400_that_names_the_field(scripted, change, named):
    if isinstance(change, bytes):
        content = change
    else:
        request = {**body("hi"), **change}
        content = json.dumps({key: value for key, value in request.items()
                              if value is not None or key not in change}).encode()
    response = scripted.http.post("/v1/messages", content=content)
    assert response.status_code == 400, response.text
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert named in error["message"]


def test_message_threads_are_refused_so_that_the_sdk_falls_back(scripted):
    response = ask(scripted, "hi", thread={"type": "create"})
    assert response.status_code == 400
    details = error_of(response)["details"]
    assert details["error_code"] == "thread_unsupported_request"


def test_a_body_above_the_limit_is_a_413_before_it_is_sent(scripted):
    answer = raw(scripted, f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:{scripted.port}\r\n"
                 "Content-Length: 67108864\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"request_too_large" in answer
    assert b"request-id: req_" in answer.lower()


@pytest.mark.parametrize("size,status", [(1 << 20, 200), ((1 << 20) + 1, 413)])
def test_the_body_limit_itself_is_still_allowed(serve_script, size, status):
    server = serve_script(env={"PENSIEVE_SERVER_BODY_MAX_MB": "1"})
    content = json.dumps(body("script: say ok")).encode()
    response = server.http.post("/v1/messages", content=content + b" " * (size - len(content)))
    assert response.status_code == status


def test_what_is_no_http_gets_an_answer_or_a_closed_connection_and_harms_nobody(scripted):
    raw(scripted, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100 + b"\r\n\r\n")
    raw(scripted, b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n")
    assert scripted.http.get("/health").status_code == 200


# --- who may ask ----------------------------------------------------------------------------------

@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"Origin": "http://evil.example"},
    {"Origin": "null"}])
def test_a_web_page_from_elsewhere_is_refused(scripted, headers):
    response = scripted.http.post("/v1/messages", json=body("hi"), headers=headers)
    assert response.status_code == 403
    assert error_of(response)["type"] == "permission_error"


def test_a_set_key_is_demanded_in_either_header(serve_script):
    server = serve_script(env={"PENSIEVE_SERVER_API_KEY": "sesame"})
    for headers, status in (({}, 401), ({"x-api-key": "wrong"}, 401),
                            ({"x-api-key": "sesame"}, 200),
                            ({"authorization": "Bearer sesame"}, 200)):
        response = server.http.post("/v1/messages", json=body("script: say hi"), headers=headers)
        assert response.status_code == status, headers
        if status == 401:
            assert error_of(response)["type"] == "authentication_error"
            assert response.headers["x-should-retry"] == "false"


# --- routes and connections -----------------------------------------------------------------------

def test_the_query_string_does_not_change_the_route(scripted):
    assert scripted.http.post("/v1/messages?beta=true", json=body("hi")).status_code == 200
    counted = scripted.http.post("/v1/messages/count_tokens?beta=true", json={
        "model": "test", "messages": [{"role": "user", "content": "hi"}]})
    assert counted.status_code == 200


def test_one_connection_serves_one_request_after_another(scripted):
    connection = http.client.HTTPConnection("127.0.0.1", scripted.port, timeout=20)
    connection.connect()
    port = connection.sock.getsockname()[1]
    for streamed in (False, True, False):
        request = json.dumps(body("script: say hi", stream=streamed))
        connection.request("POST", "/v1/messages", request, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200
        response.read()
    connection.request("POST", "/v1/messages", "{}", {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 400
    response.read()
    assert connection.sock.getsockname()[1] == port
    connection.close()
