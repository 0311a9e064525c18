"""What Claude Code does with each error: tried again or not, how often, and what its user sees.

The client's rules differ from the SDKs', and change between versions: these are why the server
words and marks its errors as it does.
"""

import json

import pytest
from fault_proxy import (Reset, Stream, end, error, error_event, message_start, text_block,
                         tool_block)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

RETRIES = {"CLAUDE_CODE_MAX_RETRIES": "2"}
PROMPT = "script: say at last"
FINAL = {"x_should_retry": "false"}


@pytest.mark.parametrize("answer", [
    error(503, "overloaded_error"), error(529, "overloaded_error"), error(429, "rate_limit_error"),
    error(500, "api_error"), error(502, "api_error"), error(504, "timeout_error"),
    error(408, "timeout_error"), Reset(),
], ids=["503", "529", "429", "500", "502", "504", "408", "reset"])
def test_what_will_pass_is_tried_again_and_answered(claude, proxy, answer):
    proxy.plan(answer)
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "at last\n"
    assert len(proxy.seen()) == 2
    assert 0.4 < proxy.gaps()[0] < 4


@pytest.mark.parametrize("answer, words", [
    (error(400, "invalid_request_error", "max_tokens: no"), "max_tokens: no"),
    (error(401, "authentication_error", "invalid x-api-key", **FINAL), "key"),
    (error(403, "permission_error", "not yours"), "not yours"),
    (error(413, "request_too_large", "too large"), "too large"),
    (error(500, "api_error", "made up", **FINAL), "made up"),
    (error(503, "api_error", "will not work", **FINAL), "will not work"),
    (error(529, "overloaded_error", "queue", **FINAL), "queue"),
], ids=["400", "401", "403", "413", "500-final", "503-final", "529-final"])
def test_what_will_not_pass_ends_at_once_with_its_words(claude, proxy, answer, words):
    proxy.plan(then=answer)
    ended = claude.run(proxy.port, "--print", PROMPT, **RETRIES)
    assert ended.returncode != 0
    assert words in (ended.stdout + ended.stderr).lower()
    gaps = proxy.gaps()
    # A 400 may be tried again in other words; what matters is that nobody waits for it.
    assert sum(gaps) < 2, gaps


def test_an_overloaded_error_is_tried_again_whatever_its_header(claude, proxy):
    """Why a refusal for good is an api_error."""
    proxy.plan(error(503, "overloaded_error", **FINAL))
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "at last\n"
    assert len(proxy.seen()) == 2


def test_retries_come_to_an_end(claude, proxy):
    proxy.plan(then=error(503, "overloaded_error", "no memory"))
    ended = claude.run(proxy.port, "--print", PROMPT, **RETRIES)
    assert ended.returncode != 0 and "no memory" in ended.stdout + ended.stderr
    assert len(proxy.seen()) == 3


def test_retry_after_is_waited_for(claude, proxy):
    proxy.plan(error(529, "overloaded_error", retry_after=3))
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "at last\n"
    assert 2.9 < proxy.gaps()[0] < 6


def test_more_than_a_minute_is_not_waited_for(claude, proxy):
    """Why retry-after is never above 60."""
    proxy.plan(then=error(529, "overloaded_error", "for long", retry_after=70))
    ended = claude.run(proxy.port, "--print", PROMPT, **RETRIES)
    assert ended.returncode != 0
    assert len(proxy.seen()) == 1


def test_a_model_that_is_not_there_is_said(claude, proxy):
    proxy.plan(then=error(404, "not_found_error", "model: none"))
    ended = claude.run(proxy.port, "--print", PROMPT, **RETRIES)
    assert ended.returncode != 0 and "model" in ended.stdout
    assert len(proxy.seen()) <= 3


def test_a_prompt_that_is_too_long_is_said(claude, proxy):
    proxy.plan(then=error(400, "invalid_request_error",
                          "prompt is too long: 205000 tokens > 65536 maximum"))
    ended = claude.run(proxy.port, "--print", PROMPT, **RETRIES)
    assert ended.returncode != 0
    assert "prompt is too long" in (ended.stdout + ended.stderr).lower()


@pytest.mark.parametrize("kind", ["api_error", "overloaded_error"])
def test_an_error_in_a_text_makes_it_ask_again(claude, proxy, kind):
    proxy.plan(Stream((message_start(), *text_block("half", stops=False), error_event(kind))))
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "at last\n"
    assert len(proxy.seen()) == 2


def test_a_reset_in_a_text_makes_it_ask_again(claude, proxy):
    proxy.plan(Stream((message_start(), *text_block("half", stops=False)), resets=True))
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "at last\n"
    assert len(proxy.seen()) >= 2


def test_an_end_without_message_stop_is_taken(claude, proxy):
    delta, _ = end()
    proxy.plan(Stream((message_start(), *text_block("whole"), delta)))
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "whole\n"
    assert len(proxy.seen()) == 1


def test_a_call_that_was_whole_before_a_reset_is_run(claude, proxy):
    """Why content_block_stop goes out only when the input of a call is complete."""
    file = claude.project / "there.txt"
    file.write_text("it is there\n")
    call = tool_block("Read", [json.dumps({"file_path": str(file)})])
    proxy.plan(Stream((message_start(), *call), resets=True))
    result = claude.do(proxy.port, "script: say never; then; say at last", **RETRIES)
    assert result["result"] == "at last"
    assert "it is there" in json.dumps(proxy.seen()[-1].body["messages"])


def test_an_input_that_is_no_json_is_told_to_the_model(claude, proxy):
    call = tool_block("Read", ['{"file_path": "cut'])
    proxy.plan(Stream((message_start(), *call, *end("tool_use"))))
    result = claude.do(proxy.port, "script: say never; then; say at last", **RETRIES)
    assert result["result"] == "at last"
    assert '"is_error": true' in json.dumps(proxy.seen()[-1].body["messages"])


def test_a_stream_that_ends_after_a_text_is_resumed_or_taken_for_whole(claude, proxy):
    """Why a failure in a stream is always said: a silent end costs a turn, or half an answer."""
    proxy.plan(Stream((message_start(), *text_block("the first half"))))
    ended = claude.run(proxy.port, "--print", PROMPT, **RETRIES)
    if claude.is_new:
        assert len(proxy.seen()) >= 2
        assert "the first half" in json.dumps(proxy.seen()[1].body["messages"])
    else:
        assert len(proxy.seen()) == 1
        assert ended.stdout == "the first half\n"


def test_a_stream_without_anything_is_asked_for_again(claude, proxy):
    proxy.plan(Stream(()))
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "at last\n"
    assert len(proxy.seen()) == 2


def test_an_empty_answer_is_asked_for_again(claude, proxy):
    proxy.plan(Stream((message_start(), *end())))
    assert claude.say(proxy.port, PROMPT, **RETRIES).startswith("at last")
    assert len(proxy.seen()) == 2


def test_a_token_limit_makes_it_go_on(claude, proxy):
    proxy.plan(Stream((message_start(), *text_block("cut"), *end("max_tokens"))))
    claude.run(proxy.port, "--print", PROMPT, **RETRIES)
    assert len(proxy.seen()) >= 2


def test_thinking_that_is_refused_is_asked_for_in_another_form(claude, proxy):
    proxy.plan(error(400, "invalid_request_error",
                     "thinking.type: adaptive is not supported by this model"))
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "at last\n"
    first, *_, last = proxy.seen()
    assert first.body["thinking"] != last.body.get("thinking")


def test_a_field_that_is_refused_is_left_out_or_ends_it(claude, proxy):
    """Why no field is ever refused: one version heals itself, another gives up."""
    proxy.plan(error(400, "invalid_request_error",
                     "context_management: Extra inputs are not permitted"))
    ended = claude.run(proxy.port, "--print", PROMPT, **RETRIES)
    if claude.is_new:
        assert ended.stdout == "at last\n"
        assert "context_management" not in proxy.seen()[-1].body
    else:
        assert ended.returncode != 0 and "context_management" in ended.stdout


def test_the_server_itself_refuses_nothing_that_it_sends(claude, proxy):
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "at last\n"
    assert len(proxy.seen()) == 1
    assert {"thinking", "tools", "system", "metadata"} <= set(proxy.seen()[0].body)
