"""Real Claude Code on a real model, in both versions; test_claude_code.py has the long prompts."""

import json
import string

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# SmolLM2 rambles. A stop sequence is an end like any other to Claude Code, and these end an answer
# after its first word.
WORD_ENDS = [letter + space for letter in string.ascii_lowercase for space in " \n"]
ONE_WORD = {"CLAUDE_CODE_EXTRA_BODY": json.dumps({
    "stop_sequences": [".", "!", "?", ",", ":", *WORD_ENDS], "temperature": 0})}


def test_a_prompt_is_answered_and_continued(claude, smollm2):
    result = claude.do(smollm2.port, "Reply with one word: hello", "--bare", "--max-turns", "1",
                       seconds=140, **ONE_WORD)
    assert result["result"].strip()
    assert result["usage"]["output_tokens"] >= 1
    again = claude.do(smollm2.port, "And another word", "--bare", "--continue", "--max-turns", "1",
                      seconds=140, **ONE_WORD)
    assert again["usage"]["cache_read_input_tokens"] > 0.8 * (
        result["usage"]["input_tokens"] + result["usage"]["cache_read_input_tokens"])


def test_context_is_counted_by_the_models_own_tokenizer(claude, smollm2):
    out = claude.say(smollm2.port, "/context", "--bare")
    assert "8.2k" in out or "8k" in out, out
