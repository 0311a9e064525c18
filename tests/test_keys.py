"""Several keys with limits of their own, as the official SDK and a shell see them."""

import anthropic
import pytest
from harness import body, run, wait_until

KEYS = {"PENSIEVE_SERVER_API_KEY": "sesame",
        "PENSIEVE_SERVER_KEYS": "alice open-1,ci open-2 requests=1,small open-3 tokens_per_day=10"}


@pytest.fixture
def server(serve_script):
    return serve_script(env=KEYS)


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
