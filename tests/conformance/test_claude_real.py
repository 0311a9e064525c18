"""Real Claude Code on a real model, in both versions; test_claude_code.py has the long prompts."""

import json
import string

import claude_code
import fault_proxy
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# SmolLM2 rambles. A stop sequence is an end like any other to Claude Code, and these end an answer
# after its first word.
WORD_ENDS = [letter + space for letter in string.ascii_lowercase for space in " \n"]
ONE_WORD = {"CLAUDE_CODE_EXTRA_BODY": json.dumps({
    "stop_sequences": [".", "!", "?", ",", ":", *WORD_ENDS], "temperature": 0})}


def re_uses(result, before):
    """Whether nearly all of the prompt of the turn before was found again."""
    usage, earlier = result["usage"], before["usage"]
    return usage["cache_read_input_tokens"] > 0.8 * (
        earlier["input_tokens"] + earlier["cache_read_input_tokens"])


def test_a_prompt_is_answered_continued_and_resumed(claude, smollm2):
    result = claude.do(smollm2.port, "Reply with one word: hello", "--bare", "--max-turns", "1",
                       seconds=140, **ONE_WORD)
    assert result["result"].strip()
    assert result["usage"]["output_tokens"] >= 1
    again = claude.do(smollm2.port, "And another word", "--bare", "--continue", "--max-turns", "1",
                      seconds=140, **ONE_WORD)
    assert re_uses(again, result)
    resumed = claude.do(smollm2.port, "A third word", "--bare", "--resume", result["session_id"],
                        "--max-turns", "1", seconds=140, **ONE_WORD)
    assert resumed["result"].strip()
    assert re_uses(resumed, again)


def test_a_schema_gives_structured_output_that_keeps_it(claude, smollm2):
    """A model so small does not find the tool by itself, so the request demands it."""
    schema = {"type": "object", "required": ["answer", "unit"], "additionalProperties": False,
              "properties": {"answer": {"type": "integer", "minimum": 0, "maximum": 99},
                             "unit": {"enum": ["metre", "mile"]}}}
    demand = {"tool_choice": {"type": "tool", "name": "StructuredOutput"}, "temperature": 0}
    result = claude.do(smollm2.port, "How long is a marathon?", "--bare", "--json-schema",
                       json.dumps(schema), seconds=140, CLAUDE_CODE_EXTRA_BODY=json.dumps(demand))
    given = result["structured_output"]
    assert set(given) == {"answer", "unit"}, result
    assert isinstance(given["answer"], int) and 0 <= given["answer"] <= 99
    assert given["unit"] in ("metre", "mile")


@pytest.fixture
def before_smollm2(smollm2):
    proxy = fault_proxy.FaultProxy(smollm2.port)
    yield proxy
    proxy.close()


def test_context_is_counted_by_the_models_own_tokenizer(claude, before_smollm2):
    out = claude.say(before_smollm2.port, "/context", "--bare")
    counted = before_smollm2.counted()
    assert {count.status for count in counted} == {200}
    with_tools = [json.loads(count.answer)["input_tokens"] for count in counted
                  if count.body.get("tools")]
    assert len(with_tools) == 1 and with_tools[0] > 500
    assert claude_code.tokens_shown(out, "System tools") == claude_code.rounded(with_tools[0]), out
    assert claude_code.tokens_shown(out, "System prompt") == claude_code.rounded(
        claude_code.system_prompt_tokens(counted)), out
