"""Tools and structured answers over the wire: shapes, loops, and what a small real model does."""

import json
import re

import anthropic
import pytest
from gguf import with_chat_template
from harness import CALM, MODELS, SMOLLM2_ID, ask, body, error_of, stream

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


def test_stop_sequences_see_the_text_and_not_how_calls_are_spelled(scripted):
    blocks, stopped, reason = outline(stream(scripted, CALL, tools=[READ],
                                             stop_sequences=["<tool_call>", '"name"']))
    assert blocks == [("text", "I look."), ("tool_use", '{"path": "a.txt"}')]
    assert stopped == {0, 1} and reason == "tool_use"


def test_a_stop_sequence_in_a_call_leaves_it_without_an_end(scripted):
    blocks, stopped, reason = outline(stream(scripted, CALL, tools=[READ],
                                             stop_sequences=["a.txt"]))
    assert reason == "stop_sequence"
    assert stopped == {0} and "a.txt" not in blocks[-1][1]


def test_deferred_tools_are_not_shown_until_the_conversation_names_them(scripted):
    request = body("hi", tools=[READ, {**READ, "name": "Later", "defer_loading": True}])
    del request["max_tokens"]

    def count(messages):
        counted = scripted.http.post("/v1/messages/count_tokens",
                                     json={**request, "messages": messages}).json()
        return counted["input_tokens"]

    asked = [{"role": "user", "content": "hi"},
             {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Read",
                                                "input": {"path": "x"}}]}]

    def result(*blocks):
        return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t",
                                             "content": list(blocks)}]}

    plain = count([*asked, result({"type": "text", "text": "Later"})])
    expanded = count([*asked, result({"type": "tool_reference", "tool_name": "Later"})])
    assert expanded > plain + 2


# --- thinking -------------------------------------------------------------------------------------

THINK = "script: think one two three four five; say Yes."
ADAPTIVE = {"thinking": {"type": "adaptive"}}


def test_thoughts_are_a_block_in_front_of_the_answer(scripted):
    events = stream(scripted, THINK, **ADAPTIVE)
    deltas = [data["delta"] for name, data in events if name == "content_block_delta"]
    thoughts = "".join(delta.get("thinking", "") for delta in deltas)
    assert thoughts == "one two three four five"
    assert "".join(delta.get("text", "") for delta in deltas) == "Yes."
    kinds = [data["content_block"]["type"] for name, data in events
             if name == "content_block_start"]
    assert kinds == ["thinking", "text"]
    order = [delta["type"] for delta in deltas]
    assert order.index("signature_delta") == order.index("text_delta") - 1
    started = next(data["message"]["usage"] for name, data in events if name == "message_start")
    assert "output_tokens_details" not in started
    # The marks around the five words are tokens of the thoughts, too.
    usage = next(data["usage"] for name, data in events if name == "message_delta")
    assert usage["output_tokens"] == 8
    assert usage["output_tokens_details"] == {"thinking_tokens": 7}


@pytest.mark.parametrize("fields", [{}, {"thinking": {"type": "disabled"}},
                                    {"thinking": {"type": "between_tools"}}])
def test_thoughts_that_nobody_asked_for_are_not_sent(scripted, fields):
    answer = ask(scripted, THINK, **fields).json()
    assert answer["content"] == [{"type": "text", "text": "Yes."}]
    # What was said is what is counted: an empty pair of marks.
    assert answer["usage"]["output_tokens"] == 3
    assert answer["usage"]["output_tokens_details"] == {"thinking_tokens": 2}


def test_a_budget_ends_the_thoughts(scripted):
    # A quarter of max_tokens is kept for the answer.
    for most, thoughts in ((8, "one two three four five"), (5, "one two three four")):
        content = ask(scripted, THINK, max_tokens=most, **ADAPTIVE).json()["content"]
        assert content[0]["thinking"] == thoughts, most
    spent = ask(scripted, "script: think " + "word " * 2000 + "; say Yes.",
                max_tokens=3000, thinking={"type": "enabled", "budget_tokens": 1024}).json()
    assert len(spent["content"][0]["thinking"].split()) == 1024
    assert spent["content"][1]["text"] == "Yes." and spent["stop_reason"] == "end_turn"


def test_omitted_thoughts_come_back_in_their_signature_and_keep_the_prefix(scripted):
    request = body(THINK, thinking={"type": "adaptive", "display": "omitted"})
    first = scripted.http.post("/v1/messages", json=request).json()
    assert first["content"][0]["thinking"] == "" and first["content"][0]["signature"]
    request["messages"] += [{"role": "assistant", "content": first["content"]},
                            {"role": "user", "content": "more"}]
    second = scripted.http.post("/v1/messages", json=request).json()
    # The question, its marks, and all of the answer: "<think>", five words, "</think>", "Yes.".
    assert second["usage"]["cache_read_input_tokens"] >= 8 + 8


def test_thoughts_come_back_whatever_their_signature(scripted):
    said = [{"type": "thinking", "thinking": "one two", "signature": ""},
            {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "Yes."}]
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": said},
                {"role": "user", "content": "script: say fine"}]
    response = scripted.http.post("/v1/messages", json=body("", messages=messages, **ADAPTIVE))
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("thinking, message", [
    ({"type": "enabled", "budget_tokens": 1023},
     "thinking.budget_tokens: Input should be greater than or equal to 1024"),
    ({"type": "enabled"}, "thinking.budget_tokens: Field required"),
    ({"type": "deep"}, "thinking.type: Input should be 'adaptive', 'enabled', 'between_tools' or "
                       "'disabled'"),
])
def test_wrong_thinking_is_refused_by_name(scripted, thinking, message):
    response = ask(scripted, "hi", thinking=thinking)
    assert response.status_code == 400
    assert error_of(response)["message"] == message


# --- a real model ---------------------------------------------------------------------------------

WEATHER = {"name": "get_weather", "description": "The weather in a city", "input_schema": {
    "type": "object", "additionalProperties": False, "required": ["city", "unit"],
    "properties": {"city": {"type": "string", "maxLength": 30},
                   "unit": {"enum": ["celsius", "fahrenheit"]},
                   "days": {"type": "integer", "minimum": 1, "maximum": 14}}}}
# Without a bound this model may write a path until its tokens are spent: cut off, and so no call.
SHORT_READ = {"name": "Read", "description": "Reads a file", "input_schema": {
    "type": "object", "additionalProperties": False, "required": ["path"],
    "properties": {"path": {"type": "string", "maxLength": 40}}}}


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_small_model_calls_with_valid_arguments(smollm2, choice):
    for seed in range(3):
        answer = ask(smollm2, "What is the weather in Oslo?", model=SMOLLM2_ID, seed=seed,
                     max_tokens=300, tools=[SHORT_READ, WEATHER], temperature=1.0,
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


@pytest.mark.parametrize("thinking", [
    {"type": "adaptive", "display": "omitted"}, {"type": "disabled"},
    {"type": "enabled", "budget_tokens": 31999}])
def test_a_model_that_does_not_think_accepts_thinking(smollm2, thinking):
    answer = ask(smollm2, "Say hello.", model=SMOLLM2_ID, max_tokens=20, thinking=thinking,
                 output_config={"effort": "high"}).json()
    assert [block["type"] for block in answer["content"]] == ["text"]


def test_a_schema_in_the_older_field_is_kept_too(smollm2):
    answer = ask(smollm2, "Yes or no?", model=SMOLLM2_ID, max_tokens=50, output_format={
        "type": "json_schema", "schema": {"enum": ["yes", "no"]}}).json()
    assert json.loads(answer["content"][0]["text"]) in ("yes", "no")


# --- a real model that thinks: SmolLM2's weights with a template that opens the thoughts ----------

THINKING_TEMPLATE = """
{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\\n' -}}
  {%- if message.reasoning_content -%}
    {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' -}}
  {%- endif -%}
  {{- message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
  {%- if enable_thinking is defined and not enable_thinking -%}
    {{- '<think>\\n\\n</think>\\n\\n' -}}
  {%- else -%}
    {{- '<think>\\n' -}}
  {%- endif -%}
{%- endif -%}"""


@pytest.fixture(scope="module")
def thinker_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("thinker") / "thinker.gguf"
    with_chat_template(MODELS / f"{SMOLLM2_ID}.gguf", path, THINKING_TEMPLATE)
    yield path
    path.unlink()


def test_a_real_model_leaves_its_thoughts_when_the_budget_is_spent(serve, thinker_path):
    server = serve("--model", thinker_path, "--context", "4096", *CALM)
    question = "Count from one to two hundred in words."

    def asked(most, **fields):
        return ask(server, question, model="thinker", temperature=0, max_tokens=most,
                   **fields).json()

    # 300 of 400 tokens may be thoughts; then they are closed, and the model may say more.
    answer = asked(400, **ADAPTIVE)
    assert answer["content"][0]["type"] == "thinking", answer
    assert 300 < answer["usage"]["output_tokens"] <= 400
    assert answer["stop_reason"] == "end_turn"  # It would have gone on thinking.
    assert "think>" not in json.dumps(answer["content"])
    thought = answer["usage"]["output_tokens_details"]["thinking_tokens"]
    assert 300 <= thought <= min(answer["usage"]["output_tokens"], 320)
    listed = server.http.get("/v1/models/thinker").json()["capabilities"]
    assert listed["thinking"]["supported"] and listed["structured_outputs"]["supported"]

    quiet = asked(60)
    assert [block["type"] for block in quiet["content"]] == ["text"], quiet
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
              "additionalProperties": False}
    kept = asked(200, **ADAPTIVE, output_config={"format": {"type": "json_schema",
                                                            "schema": schema}})
    assert [block["type"] for block in kept["content"]] == ["thinking", "text"], kept
    assert json.loads(kept["content"][1]["text"]).keys() == {"n"}
    # A bound for the path: so small a model may write one without an end.
    path = {"type": "string", "maxLength": 40}
    short = {**READ, "input_schema": {**READ["input_schema"], "properties": {"path": path}}}
    called = asked(600, **ADAPTIVE, tools=[short], tool_choice={"type": "any"})
    assert [block["type"] for block in called["content"]][:2] == ["thinking", "tool_use"], called
    assert called["content"][1]["input"].keys() == {"path"}
