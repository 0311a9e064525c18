"""Tools and structured answers over the wire: shapes, loops, and what a small real model does."""

import json
import re

import anthropic
import pytest
from harness import SMOLLM2_ID, ask, body, error_of, stream

READ = {"name": "Read", "description": "Reads a file",
        "input_schema": {"type": "object", "properties": {"path": {"type": "string"}},
                         "required": ["path"], "additionalProperties": False}}
CALL = 'script: say I look.; call Read {"path": "a.txt"}'
TOOL_ID = re.compile(r"^toolu_[0-9A-Za-z]{24}$")


def outline(events):
    """The blocks of a stream: (type, what its deltas say) in order, and the stop reason."""
    blocks, stopped, reason = [], set(), None
    for name, data in events:
        if name == "content_block_start":
            assert data["index"] == len(blocks)
            blocks.append([data["content_block"]["type"], ""])
        elif name == "content_block_delta":
            delta = data["delta"]
            blocks[data["index"]][1] += delta.get("text", delta.get("partial_json", ""))
        elif name == "content_block_stop":
            stopped.add(data["index"])
        elif name == "message_delta":
            reason = data["delta"]["stop_reason"]
    return [tuple(block) for block in blocks], stopped, reason


def test_a_call_is_a_block_of_its_own(scripted):
    blocks, stopped, reason = outline(stream(scripted, CALL, tools=[READ]))
    assert blocks == [("text", "I look."), ("tool_use", '{"path": "a.txt"}')]
    assert stopped == {0, 1}
    assert reason == "tool_use"


def test_a_whole_answer_has_the_same_blocks(scripted):
    content = ask(scripted, CALL, tools=[READ]).json()["content"]
    assert content[0] == {"type": "text", "text": "I look."}
    assert TOOL_ID.match(content[1].pop("id"))
    assert content[1] == {"type": "tool_use", "name": "Read", "input": {"path": "a.txt"}}


def test_ids_are_unique(scripted):
    ids = {ask(scripted, CALL, tools=[READ]).json()["content"][1]["id"] for _ in range(5)}
    assert len(ids) == 5


def test_several_calls_come_in_order(scripted):
    text = 'script: call Read {"path": "1"}; call Read {"path": "2"}; say done'
    blocks, stopped, reason = outline(stream(scripted, text, tools=[READ]))
    assert blocks == [("tool_use", '{"path": "1"}'), ("tool_use", '{"path": "2"}'),
                      ("text", "done")]
    assert stopped == {0, 1, 2} and reason == "tool_use"


def test_without_tools_a_call_is_text(scripted):
    blocks, _, reason = outline(stream(scripted, CALL))
    assert [kind for kind, _ in blocks] == ["text"] and reason == "end_turn"
    assert "<tool_call>" in blocks[0][1]


def test_what_is_no_call_is_text(scripted):
    blocks, _, reason = outline(stream(scripted, "script: say <tool_call> {oops", tools=[READ]))
    assert blocks == [("text", "<tool_call> {oops")] and reason == "end_turn"


def test_results_go_on_with_the_conversation(scripted):
    request = body(CALL + "; then; say It says hi.", tools=[READ])
    first = scripted.http.post("/v1/messages", json=request).json()
    call = first["content"][1]
    request["messages"] += [
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"],
                                      "content": [{"type": "text", "text": "hi"}]}]}]
    second = scripted.http.post("/v1/messages", json=request).json()
    assert second["content"] == [{"type": "text", "text": "It says hi."}]
    assert second["stop_reason"] == "end_turn"
    assert second["usage"]["cache_read_input_tokens"] > 0


@pytest.mark.parametrize("fields, message", [
    ({"tools": [{"name": "x"}]}, "tools.0.input_schema: Field required"),
    ({"tools": [READ, READ]}, "tools: Tool names must be unique."),
    ({"tools": [READ], "tool_choice": {"type": "tool", "name": "No"}},
     "tool_choice.name: Tool 'No' not found in provided tools"),
    ({"tool_choice": {"type": "any"}}, "tool_choice: it needs tools, and the request has none"),
])
def test_wrong_tools_are_refused_by_name(scripted, fields, message):
    response = ask(scripted, "hi", **fields)
    assert response.status_code == 400
    assert error_of(response)["message"] == message


def test_the_sdk_runs_a_tool_loop(scripted):
    client = anthropic.Anthropic(base_url=scripted.url, api_key="not-needed", max_retries=0)
    seen = []

    @anthropic.beta_tool
    def read(path: str) -> str:
        """Reads a file.

        Args:
            path: The file.
        """
        seen.append(path)
        return "hello"

    runner = client.beta.messages.tool_runner(
        model="test", max_tokens=500, tools=[read],
        messages=[{"role": "user",
                   "content": 'script: call read {"path": "a.txt"}; then; say It says hello.'}])
    last = runner.until_done()
    assert seen == ["a.txt"]
    assert last.content[0].text == "It says hello."


# --- a real model ---------------------------------------------------------------------------------

WEATHER = {"name": "get_weather", "description": "The weather in a city", "input_schema": {
    "type": "object", "additionalProperties": False, "required": ["city", "unit"],
    "properties": {"city": {"type": "string", "maxLength": 30},
                   "unit": {"enum": ["celsius", "fahrenheit"]},
                   "days": {"type": "integer", "minimum": 1, "maximum": 14}}}}


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_small_model_calls_with_valid_arguments(smollm2, choice):
    for seed in range(3):
        answer = ask(smollm2, "What is the weather in Oslo?", model=SMOLLM2_ID, seed=seed,
                     max_tokens=300, tools=[READ, WEATHER], temperature=1.0,
                     tool_choice={**choice, "disable_parallel_tool_use": True}).json()
        assert answer["stop_reason"] == "tool_use", answer
        call = answer["content"][-1]
        assert call["type"] == "tool_use"
        if choice["type"] == "tool":
            assert call["name"] == "get_weather"
        if call["name"] == "get_weather":
            assert call["input"].keys() <= {"city", "unit", "days"}
            assert call["input"]["unit"] in ("celsius", "fahrenheit")


def test_a_small_model_keeps_the_schema_of_an_answer(smollm2):
    schema = {"type": "object", "additionalProperties": False, "required": ["name", "age"],
              "properties": {"name": {"type": "string", "maxLength": 20},
                             "age": {"type": "integer", "minimum": 0, "maximum": 120}}}
    answer = ask(smollm2, "Tell me about a person, as JSON.", model=SMOLLM2_ID, max_tokens=200,
                 output_config={"format": {"type": "json_schema", "schema": schema}}).json()
    value = json.loads(answer["content"][0]["text"])
    assert set(value) == {"name", "age"} and 0 <= value["age"] <= 120
    assert answer["stop_reason"] == "end_turn"


def test_tool_choice_none_gives_text(smollm2):
    answer = ask(smollm2, "Read the file a.txt.", model=SMOLLM2_ID, max_tokens=60, tools=[READ],
                 tool_choice={"type": "none"}).json()
    assert {block["type"] for block in answer["content"]} <= {"text"}
