"""deploy/nginx.conf with the real nginx: TLS for other machines, and nothing lost on the way."""

import contextlib
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time

import httpx
import pytest
from harness import (ROOT, body, clean_environment, die_with_the_tests, error_of, events,
                     wait_until)

KEY = {"x-api-key": "sesame"}
NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  include {folder}/pensieve.conf;
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def nginx(folder, server, client="$remote_addr"):
    """The shipped file with this test's ports, name and certificate; `client`: whom it sees."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem"],
                   check=True, capture_output=True)
    port = free_port()
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    for said, here in (("127.0.0.1:7777", f"127.0.0.1:{server.port}"),
                       ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
                       ("pensieve.example", "localhost"), ("/etc/pensieve/tls", str(folder)),
                       ("$remote_addr", client)):
        assert said in text
        text = text.replace(said, here)
    (folder / "pensieve.conf").write_text(text)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    process = subprocess.Popen(["/usr/sbin/nginx", "-c", folder / "nginx.conf", "-p", folder],
                               preexec_fn=die_with_the_tests, stderr=subprocess.PIPE)
    try:
        context = ssl.create_default_context(cafile=folder / "fullchain.pem")
        url = f"https://localhost:{port}"

        def answers():
            assert process.poll() is None, process.stderr.read()
            with contextlib.suppress(httpx.ConnectError):
                return httpx.get(f"{url}/health", verify=context).status_code == 200
        wait_until(answers, 10, "nginx to answer")
        with httpx.Client(base_url=url, verify=context, timeout=60, trust_env=False) as client:
            yield client
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(10)
        process.stderr.close()


@pytest.fixture
def served(serve_script):
    return serve_script(env={"PENSIEVE_SERVER_API_KEY": "sesame"})


@pytest.fixture
def proxy(served, tmp_path):
    folder = tmp_path / "nginx"
    folder.mkdir()
    with nginx(folder, served) as client:
        yield client


def test_messages_errors_and_request_ids_come_through(proxy):
    answered = proxy.post("/v1/messages", json=body("script: say hi"), headers=KEY)
    assert answered.status_code == 200
    assert answered.json()["content"][0]["text"] == "hi"
    assert re.match("req_", answered.headers["request-id"])
    assert answered.headers["x-memory-status"]
    refused = proxy.post("/v1/messages", json=body("script: say hi"))
    assert refused.status_code == 401
    assert error_of(refused)["type"] == "authentication_error"
    assert refused.headers["x-should-retry"] == "false"
    assert error_of(proxy.get("/v1/nothing", headers=KEY))["type"] == "not_found_error"


def test_text_is_not_held_back(proxy):
    request = body("script: say first; slow 3000; say last", stream=True)
    with proxy.stream("POST", "/v1/messages", json=request, headers=KEY) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        came = {}
        for name, data in events(response):
            if name == "content_block_delta":
                came[data["delta"]["text"].strip()] = time.monotonic()
    assert came["last"] - came["first"] > 1.5


def test_who_hangs_up_is_noticed_through_the_proxy(proxy, served):
    served.http.headers.update(KEY)
    request = body("script: delay 20; endless x", stream=True, max_tokens=100_000)
    with proxy.stream("POST", "/v1/messages", json=request, headers=KEY) as response:
        running = events(response)  # Named: dropped, it would hang up.
        next(running)
        wait_until(lambda: served.running_requests() == 1, 10, "the request to run")
    wait_until(lambda: served.running_requests() == 0, 10, "the request to end")


def test_results_of_a_batch_have_the_proxys_address(proxy):
    created = proxy.post("/v1/messages/batches", headers=KEY, json={"requests": [
        {"custom_id": "a", "params": body("script: say one")}]}).json()
    path = f"/v1/messages/batches/{created['id']}"
    done = wait_until(lambda: (batch := proxy.get(path, headers=KEY).json())
                      ["processing_status"] == "ended" and batch, 20, "the batch to end")
    assert done["results_url"] == f"{str(proxy.base_url).rstrip('/')}{path}/results"
    line = proxy.get(done["results_url"], headers=KEY).text
    assert json.loads(line)["result"]["message"]["content"][0]["text"] == "one"


@pytest.mark.parametrize("method,path", [
    ("POST", "/v1/pensieve/stop"), ("POST", "/v1/pensieve/clear-cache"),
    ("GET", "/v1/pensieve/ps"), ("GET", "/metrics")])
def test_what_is_for_the_machine_itself_does_not_go_through(proxy, method, path):
    refused = proxy.request(method, path, headers=KEY)
    assert refused.status_code == 403
    assert error_of(refused) == {"type": "permission_error",
                                 "message": "this is for the server's own machine"}
    assert re.fullmatch("req_[0-9a-f]{32}", refused.headers["request-id"])


def test_a_body_that_is_too_large_is_refused_by_pensieve(proxy):
    response = proxy.post("/v1/messages", content=b"x" * (33 << 20), headers=KEY)
    assert response.status_code == 413
    assert error_of(response)["type"] == "request_too_large"
    assert response.headers["x-memory-status"]  # nginx knows no such thing.
    assert proxy.post("/v1/messages", json=body("script: say hi"), headers=KEY).status_code == 200


def test_what_nginx_itself_refuses_reads_like_pensieve(proxy):
    long_head = proxy.get("/health", headers={"x-long": "x" * (40 << 10)})
    assert long_head.status_code == 400
    assert error_of(long_head)["type"] == "invalid_request_error"
    long_path = proxy.get("/" + "x" * (40 << 10) + ".html")
    assert long_path.status_code == 414
    assert error_of(long_path)["type"] == "invalid_request_error"
    unknown = proxy.get("/proxy-error", headers=KEY)
    assert unknown.status_code == 404
    assert error_of(unknown)["type"] == "not_found_error"
    plain = httpx.get(f"http://127.0.0.1:{proxy.base_url.port}/health", trust_env=False)
    assert plain.status_code == 400
    assert error_of(plain)["type"] == "invalid_request_error"


def test_a_server_that_is_down_is_an_error_like_all_others(proxy, served):
    served.stop()
    response = proxy.post("/v1/messages", json=body("script: say hi"), headers=KEY)
    assert response.status_code == 502
    assert error_of(response) == {
        "type": "api_error",
        "message": "the server behind the proxy is not there; is it running?"}


def test_another_machine_needs_the_address_and_the_key_alone(proxy, tmp_path):
    """What README says to set: the official SDK with nothing but its environment."""
    program = "import anthropic; print(anthropic.Anthropic().messages.create(model='test', " \
        "max_tokens=9, messages=[{'role': 'user', 'content': 'script: say hi'}]).content[0].text)"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False,
        env=clean_environment(tmp_path, ANTHROPIC_BASE_URL=str(proxy.base_url).rstrip("/"),
                              ANTHROPIC_AUTH_TOKEN="sesame",
                              SSL_CERT_FILE=str(tmp_path / "nginx" / "fullchain.pem")))
    assert ended.stdout == "hi\n", ended.stderr


def test_without_a_key_nothing_comes_through_a_proxy(serve_script, tmp_path):
    server = serve_script()
    (tmp_path / "nginx").mkdir()
    with nginx(tmp_path / "nginx", server, "203.0.113.7") as client:
        refused = client.post("/v1/messages", json=body("script: say hi"))
        assert refused.status_code == 403
        assert "key" in error_of(refused)["message"]
    assert server.http.post("/v1/messages", json=body("script: say hi")).status_code == 200
