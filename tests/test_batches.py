"""Message batches as the official SDK uses them, and what a killed server keeps of them."""

import signal

import anthropic
import httpx
import pytest
from harness import answer, error_of, streaming, until_text, wait_until


def client_of(server):
    return anthropic.Anthropic(api_key="not-a-real-key", base_url=server.url, max_retries=0)


def request(custom_id, text, **fields):
    return {"custom_id": custom_id, "params": {
        "model": "test", "max_tokens": 1000, "messages": [{"role": "user", "content": text}],
        **fields}}


def ended(client, batch, seconds=30):
    def claim():
        now = client.messages.batches.retrieve(batch.id)
        return now if now.processing_status == "ended" else None
    return wait_until(claim, seconds, "the batch to end")


def results(client, batch):
    return {entry.custom_id: entry.result for entry in client.messages.batches.results(batch.id)}


def test_a_batch_from_its_creation_to_its_deletion(serve_script):
    client = client_of(serve_script())
    batch = client.messages.batches.create(requests=[
        request("first", "script: say one"), request("second", "script: say two", system="short"),
        request("bad", "script: say never", temperature=7)])
    assert batch.processing_status == "in_progress"
    assert batch.request_counts.processing == 3
    assert (batch.expires_at - batch.created_at).total_seconds() == 24 * 3600
    done = ended(client, batch)
    assert done.request_counts.succeeded == 2
    assert done.request_counts.errored == 1
    by_id = results(client, batch)
    assert by_id["first"].message.content[0].text == "one"
    assert by_id["second"].message.content[0].text == "two"
    assert by_id["second"].message.usage.output_tokens >= 1
    assert by_id["bad"].type == "errored"
    assert by_id["bad"].error.error.type == "invalid_request_error"
    assert [entry.id for entry in client.messages.batches.list()] == [batch.id]
    assert client.messages.batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(batch.id)


def test_batches_are_paged_through_by_iterating(serve_script):
    client = client_of(serve_script())
    created = [client.messages.batches.create(requests=[request("a", "script: say x")]).id
               for _ in range(5)]
    assert [entry.id for entry in client.messages.batches.list(limit=2)] == created[::-1]


def test_a_canceled_batch_says_what_did_not_run(serve_script):
    client = client_of(serve_script("--parallel", "1"))
    batch = client.messages.batches.create(requests=[
        request("runs", "script: delay 20; endless x", max_tokens=100_000),
        request("waits", "script: say never")])
    assert client.messages.batches.cancel(batch.id).processing_status == "canceling"
    assert ended(client, batch).request_counts.canceled == 2
    assert {entry.type for entry in results(client, batch).values()} == {"canceled"}


def test_somebody_who_asks_does_not_wait_for_a_batch(serve_script):
    server = serve_script("--parallel", "1")
    client = client_of(server)
    batch = client.messages.batches.create(requests=[
        request("long", "script: delay 20; endless x", max_tokens=100_000)])
    wait_until(lambda: server.running_requests() == 1, 10, "the batch to run")
    assert answer(server, "script: say at once") == "at once"
    assert client.messages.batches.retrieve(batch.id).processing_status == "in_progress"
    with streaming(server, "script: delay 20; endless x") as running:
        until_text(running, 20)
    client.messages.batches.cancel(batch.id)
    ended(client, batch)


def test_a_batch_survives_a_server_that_is_killed(serve, tmp_path):
    folder = tmp_path / "state"
    model = tmp_path / "test.script"
    model.write_text("# defaults\n")
    env = {"PENSIEVE_BATCHES_DIRECTORY": str(folder)}
    first = serve("--model", model, "--parallel", "1", env=env, expect=-signal.SIGKILL)
    batch = client_of(first).messages.batches.create(requests=[
        request("done", "script: say one"),
        request("cut", f"script: once {tmp_path}/mark slow 60000; say two"),
        request("never", "script: say three")])
    wait_until((tmp_path / "mark").exists, 20, "the second request to run")
    workers = first.workers()
    first.process.kill()
    first.process.wait()
    second = serve("--model", model, "--parallel", "1", env=env)
    client = client_of(second)
    done = ended(client, batch)
    assert done.request_counts.succeeded == 3
    by_id = results(client, batch)
    assert [by_id[name].message.content[0].text for name in ("done", "cut", "never")] == \
        ["one", "two", "three"]
    assert workers


def test_a_second_server_on_the_same_folder_serves_all_but_batches(serve_script, tmp_path):
    env = {"PENSIEVE_BATCHES_DIRECTORY": str(tmp_path / "state")}
    client_of(serve_script(env=env)).messages.batches.list()
    second = serve_script(env=env)
    response = second.http.get("/v1/messages/batches")
    assert response.status_code == 503
    assert response.headers["x-should-retry"] == "false"
    assert "another server" in error_of(response)["message"]
    assert answer(second, "script: say hi") == "hi"


def test_errors_of_batches_are_the_apis(serve_script):
    server = serve_script()
    client = client_of(server)
    with pytest.raises(anthropic.BadRequestError) as raised:
        client.messages.batches.create(requests=[request("a", "x"), request("a", "x")])
    assert "custom_id" in raised.value.body["error"]["message"]
    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.list(limit=0)
    for method, path in (("GET", "msgbatch_no"), ("DELETE", "msgbatch_no"),
                         ("POST", "msgbatch_no/cancel"), ("GET", "msgbatch_no/results")):
        response = httpx.request(method, f"{server.url}/v1/messages/batches/{path}")
        assert response.status_code == 404
        assert error_of(response)["type"] == "not_found_error"
