"""Tools over the wire with chat templates that have a form of their own for calls, real weights
behind them: what an agent sends is taken, and a call that must come does."""

import json
import os
import pathlib

import jsonschema
import pytest
from gguf import with_chat_template
from harness import CALM, MODELS, SMOLLM2_ID, ask

FOLDER = pathlib.Path(os.environ.get("PENSIEVE_TEST_TEMPLATES", "/templates-are-not-set-up"))
TEMPLATES = ["meta-llama-Llama-3.1-8B-Instruct", "mistralai-Mistral-Nemo-Instruct-2407",
             "Qwen3-Coder"]
READ = {"name": "Read", "description": "Reads a file", "input_schema": {
    "type": "object", "required": ["path", "lines"], "additionalProperties": False,
    "properties": {"path": {"type": "string", "maxLength": 20},
                   "lines": {"type": "integer", "minimum": 1, "maximum": 9}}}}
EXOTIC = {"name": "Exotic", "description": "Has a schema that no grammar has", "input_schema": {
    "type": "object", "required": ["r"], "properties": {
        "r": {"$ref": "#/$defs/Missing"}, "s": True, "t": {"type": "any"}}}}
IDS = ["toolu_01A09q90qw90lq917835lq91", "toolu_01A09q90qw90lq917835lq92"]
LOOP = [
    {"role": "user", "content": "Read both files."},
    {"role": "assistant", "content": [
        {"type": "text", "text": "I read them."},
        *({"type": "tool_use", "id": name, "name": "Read", "input": {"path": "a.txt", "lines": 1}}
          for name in IDS)]},
    {"role": "user", "content": [
        *({"type": "tool_result", "tool_use_id": name, "content": "one line"} for name in IDS),
        {"type": "text", "text": "<system-reminder>Be quick.</system-reminder>"}]},
    {"role": "system", "content": "The date has changed."},
]


@pytest.fixture(params=TEMPLATES)
def native(request, serve, tmp_path):
    path = tmp_path / "native.gguf"
    template = (FOLDER / f"{request.param}.jinja").read_text(encoding="utf-8")
    with_chat_template(MODELS / f"{SMOLLM2_ID}.gguf", path, template)
    yield serve("--model", path, "--context", "4096", *CALM)
    path.unlink()


def test_a_call_that_must_come_does(native):
    for choice in ({"type": "any"}, {"type": "tool", "name": "Read"}):
        for seed in (1, 2, 3):
            answer = ask(native, "Say a few words about the weather.", model="native", seed=seed,
                         max_tokens=200, temperature=1, tools=[READ], tool_choice=choice).json()
            assert answer["stop_reason"] == "tool_use", answer
            [call] = answer["content"]
            assert call["type"] == "tool_use" and call["name"] == "Read"
            assert set(call["input"]) == {"path", "lines"}
            assert 1 <= call["input"]["lines"] <= 9 and len(call["input"]["path"]) <= 20


def test_an_agents_loop_and_an_exotic_schema_are_taken(native):
    answer = ask(native, "", messages=LOOP, model="native", max_tokens=8, tools=[READ, EXOTIC])
    assert answer.status_code == 200, answer.text
    counted = native.http.post("/v1/messages/count_tokens", json={
        "model": "native", "messages": LOOP, "tools": [READ, EXOTIC]})
    assert counted.status_code == 200, counted.text
    assert counted.json()["input_tokens"] == answer.json()["usage"]["input_tokens"]


def test_a_number_that_no_double_holds_is_taken(native):
    """It is JSON: a model wrote it once, and the conversation must go on."""
    number = "-1e99999999999"
    body = json.dumps({"model": "native", "messages": LOOP, "tools": [READ], "max_tokens": 4})
    body = body.replace('"lines": 1}', f'"lines": {number}}}')
    assert number in body
    answer = native.http.post("/v1/messages", content=body)
    assert answer.status_code == 200, answer.text


def shot(i, path, lines, kind):
    """One round of a conversation that a small model goes on with."""
    return [
        {"role": "user", "content": f"Read {lines} lines of {path}."},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": f"toolu_{i:024}", "name": "Read",
             "input": {"path": path, "lines": lines, "kind": kind}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": f"toolu_{i:024}", "content": "ok"}]},
        {"role": "assistant", "content": "Done."},
    ]


# Those whose calls a small model goes on with that was trained on none of them.
OWN_WILL = ["meta-llama-Llama-3.1-8B-Instruct", "Qwen3-Coder", "GLM-4.6", "openai-gpt-oss-120b"]


@pytest.mark.parametrize("native", OWN_WILL, indirect=True)
def test_calls_of_the_models_own_will_keep_their_schema(native):
    tool = {**READ, "input_schema": {
        "type": "object", "required": ["path", "lines", "kind"], "additionalProperties": False,
        "properties": {"path": {"type": "string", "pattern": "^[a-z]{1,12}\\.(txt|md)$"},
                       "lines": {"type": "integer", "minimum": 1, "maximum": 9},
                       "kind": {"type": "string", "enum": ["plain", "marked-up"]}}}}
    rounds = [*shot(1, "a.txt", 3, "plain"), *shot(2, "b.md", 4, "marked-up"),
              *shot(3, "c.txt", 9, "plain"), *shot(4, "d.md", 2, "marked-up")]
    calls = 0
    for seed in range(24):
        if calls >= 3:
            break
        answer = ask(native, "", model="native", seed=seed, max_tokens=120, temperature=1,
                     tools=[tool], messages=[
                         *rounds, {"role": "user", "content": "Read 77 lines of e.tex."}]).json()
        for block in answer["content"]:
            if block["type"] != "tool_use":
                continue
            calls += 1
            jsonschema.validate(block["input"], tool["input_schema"])
    assert calls >= 3, "the model hardly called"
