"""Message batches through the official SDKs: every call, and results of every kind."""

import harness
import pytest
from harness import wait_until
from sdk_clients import SdkError


def batch_of(**texts):
    return {"requests": [
        {"custom_id": name, "params": {"model": "test", "max_tokens": 100, "messages": [
            {"role": "user", "content": text}]}} for name, text in texts.items()]}


@pytest.fixture(scope="module")
def _keeper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    server = harness.Server(folder / "home", ["--model", harness.write_script_model(folder)])
    yield server
    server.stop()


@pytest.fixture
def call(sdk, _keeper, request):
    """call(NAME, **arguments): a call of the batches resource of one SDK."""
    request.node.servers = [_keeper]

    def ask(name, **arguments):
        return sdk.ok(_keeper.url, "batch", {"call": name, "arguments": arguments})

    yield ask
    for batch in ask("list"):  # Each SDK begins with nothing.
        if batch["processing_status"] != "ended":
            ask("cancel", message_batch_id=batch["id"])
            ended(ask, batch)
        ask("delete", message_batch_id=batch["id"])


def ended(call, batch):
    def claim():
        now = call("retrieve", message_batch_id=batch["id"])
        return now if now["processing_status"] == "ended" else None
    return wait_until(claim, 30, "the batch to end")


def results(call, batch):
    return {line["custom_id"]: line["result"]
            for line in call("results", message_batch_id=batch["id"])}


def test_a_batch_is_answered_and_its_results_are_read(call):
    batch = call("create", **batch_of(first="script: say one", second="script: say two"))
    assert batch["type"] == "message_batch" and batch["id"].startswith("msgbatch_")
    done = ended(call, batch)
    assert done["request_counts"] == {"processing": 0, "succeeded": 2, "errored": 0,
                                      "canceled": 0, "expired": 0}
    said = {name: result["message"]["content"][0]["text"]
            for name, result in results(call, batch).items()}
    assert said == {"first": "one", "second": "two"}


def test_a_bad_request_is_a_result_of_its_own(call):
    requests = batch_of(good="script: say one", bad="script: say two")
    requests["requests"][1]["params"]["max_tokens"] = -1
    batch = call("create", **requests)
    ended(call, batch)
    found = results(call, batch)
    assert (found["good"]["type"], found["bad"]["type"]) == ("succeeded", "errored")
    assert found["bad"]["error"]["error"]["type"] == "invalid_request_error"


def test_batches_are_listed_page_by_page_the_newest_first(call):
    ids = [call("create", **batch_of(one="script: say x"))["id"] for _ in range(3)]
    assert [batch["id"] for batch in call("list", limit=1)] == ids[::-1]


def test_a_batch_is_canceled(call):
    batch = call("create", **batch_of(long="script: delay 50; endless word",
                                      other="script: delay 50; endless word"))
    canceled = call("cancel", message_batch_id=batch["id"])
    assert canceled["processing_status"] in ("canceling", "ended")
    ended(call, batch)
    assert "canceled" in {result["type"] for result in results(call, batch).values()}


def test_a_deleted_batch_is_not_found(call):
    batch = call("create", **batch_of(one="script: say x"))
    ended(call, batch)
    assert call("delete", message_batch_id=batch["id"])["type"] == "message_batch_deleted"
    with pytest.raises(SdkError) as raised:
        call("retrieve", message_batch_id=batch["id"])
    assert (raised.value.name, raised.value.status) == ("NotFoundError", 404)


def test_an_empty_batch_is_refused(call):
    with pytest.raises(SdkError) as raised:
        call("create", requests=[])
    assert (raised.value.name, raised.value.type) == ("BadRequestError", "invalid_request_error")
