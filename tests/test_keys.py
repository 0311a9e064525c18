"""Several keys with limits of their own, as the official SDK and a shell see them."""

import subprocess

import anthropic
import pytest
from harness import ROOT, body, clean_environment, run, wait_until

KEYS = {"PENSIEVE_SERVER_API_KEY": "sesame",
        "PENSIEVE_SERVER_KEYS": "alice open-1,ci open-2 requests=1,small open-3 tokens_per_day=10"}


@pytest.fixture
def server(serve_script):
    return serve_script(env=KEYS)


# Keys without [server] api_key; the first has a limit.
NAMED = {"PENSIEVE_SERVER_KEYS": "ci open-2 requests=1,alice open-1"}


def client_of(server, key):
    return anthropic.Anthropic(api_key=key, base_url=server.url, max_retries=0)


def hello(client, text="script: say hi"):
    return client.messages.create(model="test", max_tokens=100,
                                  messages=[{"role": "user", "content": text}])


@pytest.mark.parametrize("key", ["sesame", "open-1", "open-2", "open-3"])
def test_each_key_opens(server, key):
    assert hello(client_of(server, key)).content[0].text == "hi"


@pytest.mark.parametrize("key", ["alice", "open-", "open-11", "Sesame", "ci open-2"])
def test_nothing_else_does(server, key):
    with pytest.raises(anthropic.AuthenticationError):
        hello(client_of(server, key))


def test_a_key_at_its_limit_of_requests_is_a_rate_limit_error_that_passes(server):
    server.http.headers["x-api-key"] = "open-2"
    request = body("script: delay 20; endless x", stream=True)
    with server.http.stream("POST", "/v1/messages", json=request) as running:
        lines = running.iter_lines()  # Named: dropped, it would hang up.
        next(lines)
        with pytest.raises(anthropic.RateLimitError) as raised:
            hello(client_of(server, "open-2"))
        assert 1 <= int(raised.value.response.headers["retry-after"]) <= 30
        assert raised.value.body["error"]["type"] == "rate_limit_error"
        assert hello(client_of(server, "open-1"))
    wait_until(lambda: server.running_requests() == 0, 10, "the request to end")
    assert hello(client_of(server, "open-2"))


def test_a_key_that_has_used_up_its_day_is_told_once(server):
    client = anthropic.Anthropic(api_key="open-3", base_url=server.url)  # Would repeat a 429.
    hello(client, "script: say one two three four five")
    with pytest.raises(anthropic.RateLimitError) as raised:
        hello(client)
    assert "00:00 UTC" in raised.value.body["error"]["message"]
    assert raised.value.response.headers["x-should-retry"] == "false"


def test_a_restart_gives_no_new_budget(serve_script, tmp_path):
    env = {**KEYS, "XDG_STATE_HOME": str(tmp_path / "state")}
    first = serve_script(env=env)
    hello(client_of(first, "open-3"), "script: say one two three four five")
    first.stop()
    kept = (tmp_path / "state/pensieve/key-use-0.json").read_text()
    assert '"small":' in kept and "open-" not in kept
    second = serve_script(env=env)
    with pytest.raises(anthropic.RateLimitError):
        hello(client_of(second, "open-3"))
    assert hello(client_of(second, "open-1"))


def test_a_batch_belongs_to_the_key_that_created_it(server):
    alice, ci = client_of(server, "open-1"), client_of(server, "open-2")
    batch = alice.messages.batches.create(requests=[{"custom_id": "a", "params": body("x")}])
    assert [entry.id for entry in alice.messages.batches.list()] == [batch.id]
    assert list(ci.messages.batches.list()) == []
    with pytest.raises(anthropic.NotFoundError):
        ci.messages.batches.retrieve(batch.id)


def test_no_secret_is_ever_shown(tmp_path, server):
    shown = run(tmp_path, "config", env=KEYS)
    assert shown.returncode == 0
    assert "open-" not in shown.stdout and "sesame" not in shown.stdout
    assert "open-" not in server.output() and "sesame" not in server.output()
    wrong = run(tmp_path, "config", env={"PENSIEVE_SERVER_KEYS": "ci open-2 limit=1"})
    assert wrong.returncode == 2
    assert "open-" not in wrong.stderr
    assert "entry 1: ci" in wrong.stderr


@pytest.mark.parametrize("command", [["ps"], ["run", "script: say hi"], ["clear-cache"]])
def test_commands_send_a_named_key_where_there_is_no_other(serve_script, tmp_path, command):
    server = serve_script(env=NAMED)
    ended = run(tmp_path, *command, "--port", server.port, env=NAMED)
    assert ended.returncode == 0, ended.stderr
    assert "open-" not in ended.stdout + ended.stderr
    wrong = run(tmp_path, *command, "--port", server.port)
    assert wrong.returncode == 2
    assert "[server] api_key or keys" in wrong.stderr


def test_stop_sends_a_named_key_where_there_is_no_other(serve_script, tmp_path):
    server = serve_script(env=NAMED)
    assert run(tmp_path, "stop", "--port", server.port).returncode == 2
    assert run(tmp_path, "stop", "--port", server.port, env=NAMED).returncode == 0
    assert server.process.wait(10) == 0


def launch_claude(server, home, **env):
    """Runs claude-local with a claude that says only which key it was given."""
    program = home / "bin" / "claude"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\nprintf %s \"$ANTHROPIC_API_KEY\" >{home}/given\n")
    program.chmod(0o755)
    environment = clean_environment(home, PENSIEVE_PORT=str(server.port), **env)
    environment["PATH"] = f"{program.parent}:{environment['PATH']}"
    return subprocess.run([str(ROOT / "scripts" / "claude-local")], cwd=home, env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                          check=False)


def test_claude_local_finds_a_named_key_and_does_not_show_it(serve_script, tmp_path):
    server = serve_script(env=NAMED)
    ended = launch_claude(server, tmp_path, **NAMED)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "given").read_text() == "open-1"
    assert "open-" not in ended.stdout + ended.stderr
    wrong = launch_claude(server, tmp_path, PENSIEVE_SERVER_API_KEY="open-9")
    assert wrong.returncode == 2
    assert "api_key or keys" in wrong.stderr and "open-" not in wrong.stderr


def test_a_secret_that_stands_twice_is_refused(tmp_path):
    env = {"PENSIEVE_SERVER_API_KEY": "open-1", **NAMED}
    ended = run(tmp_path, "serve", env=env)
    assert ended.returncode == 2
    assert "alice has the same secret as [server] api_key" in ended.stderr
    assert "open-" not in ended.stderr
