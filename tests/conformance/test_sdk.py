"""The official SDKs, each in two versions, against the server: all but tools and batches.

Exact answers come from the scripted engine, and SmolLM2 shows the way through a real model.
"""

import pytest
from harness import SMOLLM2_ID, wait_until
from sdk_clients import SdkError

TEXT = "one two three"


def asked(text, **more):
    return {"model": "test", "max_tokens": 100,
            "messages": [{"role": "user", "content": text}], **more}


def script(statements, **more):
    return asked(f"script: {statements}", **more)


REAL = {"model": SMOLLM2_ID, "max_tokens": 16,
        "messages": [{"role": "user", "content": "Say hello."}]}


def text_of(message):
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [False, True])
def test_create_returns_the_message_as_it_was_said(sdk, steady, beta):
    seen = sdk.ok(steady.url, "create", script(f"say {TEXT}"), beta=beta)
    message = seen["message"]
    assert text_of(message) == TEXT
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", "test")
    assert (message["stop_reason"], message.get("stop_sequence")) == ("end_turn", None)
    assert message["usage"]["output_tokens"] >= 3
    assert message["id"].startswith("msg_") and seen["request_id"].startswith("req_")


@pytest.mark.parametrize("beta", [False, True])
def test_stream_gives_the_same_text_in_pieces_and_whole(sdk, steady, beta):
    seen = sdk.ok(steady.url, "stream", script(f"say {TEXT}"), beta=beta)
    assert seen["text"] == text_of(seen["message"]) == TEXT
    assert seen["message"]["stop_reason"] == "end_turn"
    assert seen["request_id"].startswith("req_")


def test_events_come_in_the_documented_order(sdk, steady):
    events = sdk.ok(steady.url, "events", script(f"say {TEXT}"))
    # The Python SDK keeps pings from its users, the other one does as well or shows them.
    kinds = [event["type"] for event in events if event["type"] != "ping"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    start = events[0]["message"]
    assert start["content"] == [] and start["stop_reason"] is None


def test_max_tokens_ends_an_answer(sdk, steady):
    message = sdk.ok(steady.url, "create", script("endless word", max_tokens=5))["message"]
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 5


def test_max_tokens_0_reads_the_prompt_for_the_next_request(sdk, steady):
    request = script("say warm " + "and " * 200 + sdk.name)
    first = sdk.ok(steady.url, "create", request | {"max_tokens": 0})["message"]
    assert (first["content"], first["stop_reason"]) == ([], "max_tokens")
    assert first["usage"]["output_tokens"] == 0
    again = sdk.ok(steady.url, "create", request)["message"]
    assert again["usage"]["cache_read_input_tokens"] >= 200


def test_a_stop_sequence_ends_an_answer_and_is_named(sdk, steady):
    request = script("say one two STOP three", stop_sequences=["STOP"])
    message = sdk.ok(steady.url, "create", request)["message"]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "STOP")
    assert text_of(message).strip() == "one two"


def test_a_turn_that_was_begun_is_continued(sdk, steady):
    request = script("say and the end")
    request["messages"].append({"role": "assistant", "content": "The beginning"})
    assert text_of(sdk.ok(steady.url, "create", request)["message"]).strip() == "and the end"


@pytest.mark.parametrize("content", [
    [{"type": "text", "text": f"script: say {TEXT}"}],
    [{"type": "text", "text": f"script: say {TEXT}", "cache_control": {"type": "ephemeral"}}]])
def test_blocks_say_the_same_as_a_string(sdk, steady, content):
    request = asked("", system=[{"type": "text", "text": "Be brief."}])
    request["messages"][0]["content"] = content
    assert text_of(sdk.ok(steady.url, "create", request)["message"]) == TEXT


def test_what_is_asked_twice_comes_from_the_cache(sdk, steady):
    request = script(f"say {sdk.name} {'word ' * 200}")
    first, second = (sdk.ok(steady.url, "create", request)["message"]["usage"] for _ in range(2))
    assert second["cache_read_input_tokens"] > 200
    assert second["input_tokens"] + second["cache_read_input_tokens"] == (
        first["input_tokens"] + first["cache_read_input_tokens"])


def test_unknown_betas_and_fields_are_no_error(sdk, steady):
    headers = {"anthropic-beta": "made-up-2027-01-01,another-one", "x-made-up": "1"}
    seen = sdk.ok(steady.url, "create", script(f"say {TEXT}", metadata={"user_id": "me"},
                                               service_tier="auto"),
                  {"default_headers": headers})
    assert text_of(seen["message"]) == TEXT


def test_an_aborted_stream_frees_its_place(sdk, steady):
    request = script("delay 20; endless word", max_tokens=30000)
    assert sdk.ok(steady.url, "abort", request) is True
    wait_until(lambda: steady.running_requests() == 0, 5, "a freed place")


def test_thinking_that_is_sent_back_is_accepted(sdk, steady):
    request = script(f"say {TEXT}", max_tokens=2000,
                     thinking={"type": "enabled", "budget_tokens": 1024})
    request["messages"] = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "They greet me.", "signature": "any"},
            {"type": "text", "text": "Hello!"}]},
        *request["messages"]]
    assert text_of(sdk.ok(steady.url, "create", request)["message"]) == TEXT


# --- counting and models --------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [False, True])
def test_count_tokens_says_what_usage_says(sdk, steady, beta):
    request = script(f"say {TEXT}", system="You count.")
    counted = sdk.ok(steady.url, "count_tokens",
                     {key: request[key] for key in ("model", "messages", "system")}, beta=beta)
    usage = sdk.ok(steady.url, "create", request)["message"]["usage"]
    assert counted == usage["input_tokens"] + usage["cache_read_input_tokens"]


def test_models_are_paged_through(sdk, steady):
    models = sdk.ok(steady.url, "models", {"limit": 1})
    names = [model["id"] for model in models]
    assert names == sorted(set(names)) and "test" in names
    assert all(model["type"] == "model" and model["display_name"] for model in models)


def test_a_model_is_found_by_its_id(sdk, steady):
    model = sdk.ok(steady.url, "model", {"id": "test"})
    assert model["id"] == "test"
    if sdk.is_new:
        assert model["max_input_tokens"] == 65536


def test_a_model_that_is_not_there_is_not_found(sdk, steady):
    with pytest.raises(SdkError) as raised:
        sdk.ok(steady.url, "model", {"id": "made/up"})
    assert (raised.value.name, raised.value.status) == ("NotFoundError", 404)


# --- errors that the server itself gives ----------------------------------------------------------

TOO_LARGE = {True: {"python": "ContentTooLargeError", "typescript": "ContentTooLargeError"},
             False: {"python": "RequestTooLargeError", "typescript": "APIError"}}


@pytest.mark.parametrize("change, name, status, kind, words", [
    ({"max_tokens": -1}, "BadRequestError", 400, "invalid_request_error", "max_tokens"),
    ({"messages": []}, "BadRequestError", 400, "invalid_request_error", "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "BadRequestError", 400,
     "invalid_request_error", "messages.0.role"),
    ({"temperature": 7}, "BadRequestError", 400, "invalid_request_error", "temperature"),
    ({"model": "no-such-model"}, "NotFoundError", 404, "not_found_error", "no-such-model"),
    ({"messages": [{"role": "user", "content": "word " * 70000}]}, "BadRequestError", 400,
     "invalid_request_error", "prompt is too long: "),
], ids=["max_tokens", "no-messages", "role", "temperature", "model", "too-long"])
def test_a_refusal_arrives_as_the_sdks_class(sdk, steady, change, name, status, kind, words):
    with pytest.raises(SdkError) as raised:
        sdk.ok(steady.url, "stream" if status == 404 else "create", asked("Hello") | change)
    error = raised.value
    assert (error.name, error.status, error.type) == (name, status, kind)
    assert error.request_id.startswith("req_")
    assert words in error.message


def test_a_body_that_is_too_large_is_refused_once(sdk, serve_script):
    server = serve_script(env={"PENSIEVE_SERVER_BODY_MAX_MB": "1"})
    with pytest.raises(SdkError) as raised:
        sdk.ok(server.url, "create", asked("x" * (2 << 20)), {"max_retries": 2})
    error = raised.value
    assert (error.status, error.type) == (413, "request_too_large")
    assert error.name == TOO_LARGE[sdk.is_new][sdk.language]
    assert error.seconds < 5


def test_a_wrong_key_is_refused_and_the_right_one_is_taken(sdk, serve_script):
    server = serve_script(env={"PENSIEVE_SERVER_API_KEY": "sesame"})
    with pytest.raises(SdkError) as raised:
        sdk.ok(server.url, "create", script("say hi"), {"max_retries": 2})
    assert (raised.value.name, raised.value.type) == ("AuthenticationError",
                                                      "authentication_error")
    assert raised.value.seconds < 2
    seen = sdk.ok(server.url, "create", script("say hi"), {"api_key": "sesame"})
    assert text_of(seen["message"]) == "hi"
    token = sdk.ok(server.url, "create", script("say hi"),
                   {"auth_token": "sesame", "api_key": None})
    assert text_of(token["message"]) == "hi"


def test_short_memory_is_an_error_with_the_numbers(sdk, serve_short_of_memory):
    server = serve_short_of_memory("Critical")
    with pytest.raises(SdkError) as raised:
        sdk.ok(server.url, "create", script("say hi"))
    assert (raised.value.status, raised.value.type) == (503, "overloaded_error")
    assert "GB" in raised.value.message


@pytest.mark.parametrize("op", ["stream", "create"])
def test_a_worker_that_dies_in_an_answer_is_an_error(sdk, serve_script, op):
    server = serve_script()
    with pytest.raises(SdkError) as raised:
        sdk.ok(server.url, op, script("say one; abort; say two"))
    assert "worker" in raised.value.message
    again = sdk.ok(server.url, "create", script("say back"))
    assert text_of(again["message"]) == "back"


# --- a real model ---------------------------------------------------------------------------------


def test_a_real_model_answers(sdk, smollm2):
    message = sdk.ok(smollm2.url, "create", REAL)["message"]
    assert text_of(message)
    assert message["stop_reason"] in ("end_turn", "max_tokens")
    assert 1 <= message["usage"]["output_tokens"] <= 16


def test_a_real_model_streams(sdk, smollm2):
    seen = sdk.ok(smollm2.url, "stream", REAL)
    assert seen["text"] == text_of(seen["message"]) != ""


def test_a_real_model_counts_as_it_uses(sdk, smollm2):
    counted = sdk.ok(smollm2.url, "count_tokens",
                     {key: REAL[key] for key in ("model", "messages")})
    usage = sdk.ok(smollm2.url, "create", REAL)["message"]["usage"]
    assert counted == usage["input_tokens"] + usage["cache_read_input_tokens"]
