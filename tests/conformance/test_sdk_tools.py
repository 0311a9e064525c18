"""Tools and structured answers through the official SDKs, their own loops included."""

import pytest
from harness import SMOLLM2_ID
from sdk_clients import SdkError
from test_sdk import script, text_of

READ = {"name": "read", "description": "Reads a file.",
        "input_schema": {"type": "object", "properties": {"path": {"type": "string"}},
                         "required": ["path"]}}
CALL = 'say I look.; call read {"path": "a.txt"}'


def calls_of(message):
    return [(block["name"], block["input"]) for block in message["content"]
            if block["type"] == "tool_use"]


@pytest.mark.parametrize("op", ["create", "stream"])
def test_a_call_arrives_with_its_input(sdk, steady, op):
    message = sdk.ok(steady.url, op, script(CALL, tools=[READ]))["message"]
    assert text_of(message).strip() == "I look."
    assert calls_of(message) == [("read", {"path": "a.txt"})]
    assert message["stop_reason"] == "tool_use"
    assert message["content"][-1]["id"].startswith("toolu_")


def test_an_input_is_streamed_in_fragments_that_make_it(sdk, steady):
    events = sdk.ok(steady.url, "events", script(CALL, tools=[READ]))
    fragments = [event["delta"]["partial_json"] for event in events
                 if event["type"] == "content_block_delta"
                 and event["delta"]["type"] == "input_json_delta"]
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert "".join(fragments).replace(" ", "") == '{"path":"a.txt"}'
    assert (starts[-1]["type"], starts[-1]["input"]) == ("tool_use", {})


def test_a_call_without_arguments_has_an_empty_input(sdk, steady):
    tool = {"name": "now", "input_schema": {"type": "object", "properties": {}}}
    message = sdk.ok(steady.url, "stream", script("call now {}", tools=[tool]))["message"]
    assert calls_of(message) == [("now", {})]


def test_calls_at_once_keep_their_order_and_have_ids_of_their_own(sdk, steady):
    text = 'call read {"path": "1"}; call read {"path": "2"}; call read {"path": "3"}'
    message = sdk.ok(steady.url, "create", script(text, tools=[READ]))["message"]
    assert [given["path"] for _, given in calls_of(message)] == ["1", "2", "3"]
    assert len({block["id"] for block in message["content"]}) == 3


@pytest.mark.parametrize("streams", [False, True])
def test_a_tool_runner_runs_to_the_end(sdk, steady, streams):
    request = script('call add {"a": 19, "b": 23}; then; call read {"path": "b"}; then; say done')
    if streams:
        request["stream"] = True
    seen = sdk.ok(steady.url, "tool_runner", request)
    assert seen["calls"] == [["add", {"a": 19, "b": 23}], ["read", {"path": "b"}]]
    assert len(seen["messages"]) == 3
    assert text_of(seen["messages"][-1]) == "done"


def test_a_tool_runner_goes_on_after_a_tool_that_failed(sdk, steady):
    request = script('call fails {"why": "no disk"}; then; say I see.')
    seen = sdk.ok(steady.url, "tool_runner", request)
    assert seen["calls"] == [["fails", {"why": "no disk"}]]
    assert text_of(seen["messages"][-1]) == "I see."


def test_a_tool_runner_keeps_the_whole_conversation(sdk, proxy):
    """Threads would leave history and tools out of the second request: they are refused."""
    request = script('call add {"a": 1, "b": 2}; then; say three')
    sdk.ok(proxy.url, "tool_runner", request)
    last = proxy.seen()[-1].body
    assert "thread" not in last or last["thread"] is None
    assert [message["role"] for message in last["messages"]] == ["user", "assistant", "user"]
    assert {tool["name"] for tool in last["tools"]} == {"add", "read", "fails"}


def test_results_are_matched_by_their_ids(sdk, steady):
    request = script('call read {"path": "1"}; call read {"path": "2"}; then; say both',
                     tools=[READ])
    first = sdk.ok(steady.url, "create", request)["message"]
    ids = [block["id"] for block in first["content"]]
    results = [{"type": "tool_result", "tool_use_id": call, "content": f"result of {call}"}
               for call in reversed(ids)]
    request["messages"] += [{"role": "assistant", "content": first["content"]},
                            {"role": "user", "content": results}]
    assert text_of(sdk.ok(steady.url, "create", request)["message"]) == "both"


SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}


@pytest.mark.parametrize("op", ["create", "stream"])
def test_a_web_search_is_said_to_be_unavailable(sdk, steady, op):
    """There is none: the client reads so in the form that it knows, and the model is told, too."""
    request = script("say I cannot search.", tools=[SEARCH])
    message = sdk.ok(steady.url, op, request)["message"]
    use, result, said = message["content"]
    assert (use["type"], use["name"]) == ("server_tool_use", "web_search")
    assert use["input"] == {"query": request["messages"][0]["content"]}
    assert (result["type"], result["tool_use_id"]) == ("web_search_tool_result", use["id"])
    assert result["content"]["error_code"] == "unavailable"
    assert said["text"] == "I cannot search."
    assert message["stop_reason"] == "end_turn"
    # It goes back as it came; what was said, and not the search, is in the next prompt.
    request["messages"] += [{"role": "assistant", "content": message["content"]},
                            {"role": "user", "content": "script: say Well."}]
    again = sdk.ok(steady.url, op, request)["message"]
    assert text_of(again) == "Well."


def test_a_web_search_beside_other_tools_is_not_tried(sdk, steady):
    message = sdk.ok(steady.url, "create", script(CALL, tools=[SEARCH, READ]))["message"]
    assert [block["type"] for block in message["content"]] == ["text", "tool_use"]


@pytest.mark.parametrize("fields, words", [
    ({"tools": [{"name": "x"}]}, "tools.0.input_schema"),
    ({"tools": [READ, READ]}, "unique"),
    ({"tools": [READ], "tool_choice": {"type": "tool", "name": "No"}}, "'No' not found"),
    ({"tools": [READ], "tool_choice": {"type": "perhaps"}}, "tool_choice"),
], ids=["no-schema", "twice", "unknown-choice", "wrong-choice"])
def test_wrong_tools_are_refused_by_name(sdk, steady, fields, words):
    with pytest.raises(SdkError) as raised:
        sdk.ok(steady.url, "create", script("say hi", **fields))
    assert raised.value.status == 400
    assert words in raised.value.message


def test_parse_gives_an_object_of_the_schema(sdk, steady):
    seen = sdk.ok(steady.url, "parse", script('say {"name": "Ada", "age": 36}'))
    assert seen["parsed"] == {"name": "Ada", "age": 36}
    assert seen["message"]["stop_reason"] == "end_turn"


# --- a real model ---------------------------------------------------------------------------------

WEATHER = {"name": "get_weather", "description": "The weather in a city", "input_schema": {
    "type": "object", "additionalProperties": False, "required": ["city", "unit"],
    "properties": {"city": {"type": "string", "maxLength": 30},
                   "unit": {"enum": ["celsius", "fahrenheit"]}}}}


def real(text, **more):
    return {"model": SMOLLM2_ID, "max_tokens": 400,
            "messages": [{"role": "user", "content": text}], **more}


@pytest.mark.parametrize("op", ["create", "stream"])
def test_a_real_model_calls_the_tool_that_it_must(sdk, smollm2, op):
    request = real("What is the weather in Oslo?", tools=[WEATHER],
                   tool_choice={"type": "tool", "name": "get_weather",
                                "disable_parallel_tool_use": True})
    message = sdk.ok(smollm2.url, op, request)["message"]
    assert message["stop_reason"] == "tool_use"
    (name, given), *_ = calls_of(message)
    assert name == "get_weather" and set(given) == {"city", "unit"}
    assert given["unit"] in ("celsius", "fahrenheit")


def test_a_real_models_answer_is_parsed(sdk, smollm2):
    # Greedy: this model may go on with a name to the end of its tokens.
    seen = sdk.ok(smollm2.url, "parse", real("Describe a person as JSON.", temperature=0))
    assert isinstance(seen["parsed"]["name"], str) and isinstance(seen["parsed"]["age"], int)
