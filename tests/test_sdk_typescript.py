"""The official TypeScript SDK against the server; clients/sdk.mjs is the program."""

import json
import pathlib
import subprocess

import pytest
from harness import SMOLLM2_ID, clean_environment, wait_until

PROGRAM = pathlib.Path(__file__).parent / "clients" / "sdk.mjs"


@pytest.fixture(scope="module")
def seen(_shared_smollm2, clients, tmp_path_factory):
    """What the SDK saw in one run of the program."""
    home = tmp_path_factory.mktemp("node")
    ended = subprocess.run(["node", str(PROGRAM), str(clients), _shared_smollm2.url, SMOLLM2_ID],
                           env=clean_environment(home), cwd=home, capture_output=True, text=True,
                           timeout=100, stdin=subprocess.DEVNULL, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_create_returns_a_message_with_usage_and_request_id(seen):
    assert seen["create"]["text"]
    assert seen["create"]["usage"]["output_tokens"] >= 1
    assert seen["create"]["id"].startswith("req_")


def test_stream_gives_the_text_that_the_final_message_has(seen):
    assert seen["stream"]["text"] == seen["stream"]["final"] != ""
    assert seen["stream"]["stop_reason"] in ("end_turn", "max_tokens")


def test_raw_events_begin_and_end_as_documented(seen):
    assert (seen["events"][0], seen["events"][-1]) == ("message_start", "message_stop")


def test_count_tokens_agrees_with_usage(seen):
    usage = seen["create"]["usage"]
    assert seen["count"]["input_tokens"] == (
        usage["input_tokens"] + usage["cache_read_input_tokens"])


def test_models_are_paged_through_by_iterating(seen):
    assert SMOLLM2_ID.lower() in " ".join(seen["models"]).lower()
    assert seen["retrieved"] == seen["models"][0]


def test_errors_arrive_as_the_sdks_classes(seen):
    bad, missing = seen["errors"]["max_tokens"], seen["errors"]["model"]
    assert (bad["name"], bad["status"], bad["type"]) == (
        "BadRequestError", 400, "invalid_request_error")
    assert (missing["name"], missing["status"], missing["type"]) == (
        "NotFoundError", 404, "not_found_error")
    assert bad["id"].startswith("req_")


def test_aborting_a_stream_frees_its_place(seen, smollm2):
    assert seen["aborted"] == "APIUserAbortError"
    wait_until(lambda: smollm2.running_requests() == 0, 5, "a freed place")
