"""What Claude Code does with each error: tried again or not, how often, and what its user sees.

The client's rules differ from the SDKs', and change between versions: these are why the server
words and marks its errors as it does.
"""

import concurrent.futures
import json

import fault_proxy
import pytest
from fault_proxy import (Reset, Stream, end, error, error_event, message_start, text_block,
                         tool_block)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

RETRIES = {"CLAUDE_CODE_MAX_RETRIES": "2"}
PROMPT = "script: say at last"
FINAL = {"x_should_retry": "false"}
TOO_LONG = "prompt is too long: 205000 tokens > 65536 maximum"
NO_EXTRAS = "output_config: Extra inputs are not permitted"
HALF = text_block("half", stops=False)


def streams(proxy):
    """Of each request, whether it asked for a stream."""
    return [bool(request.body.get("stream")) for request in proxy.seen()]


@pytest.mark.parametrize("answer", [
    error(503, "overloaded_error"), error(529, "overloaded_error"), error(429, "rate_limit_error"),
    error(500, "api_error"), error(501, "not_supported"), error(502, "api_error"),
    error(504, "timeout_error"), error(408, "timeout_error"),
    error(401, "authentication_error"), Reset(),
], ids=["503", "529", "429", "500", "501", "502", "504", "408", "401", "reset"])
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
    (error(422, "invalid_request_error", "unprocessable"), "unprocessable"),
    (error(429, "rate_limit_error", "a day's tokens", **FINAL), "a day's tokens"),
    (error(500, "api_error", "made up", **FINAL), "made up"),
    (error(501, "not_supported", "cannot", **FINAL), "cannot"),
    (error(503, "api_error", "will not work", **FINAL), "will not work"),
    (error(529, "overloaded_error", "queue", **FINAL), "queue"),
], ids=["400", "401", "403", "413", "422", "429-final", "500-final", "501-final", "503-final",
        "529-final"])
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


def test_forty_seconds_are_waited_for(claudes, steady):
    """Both at once, because they do nothing but wait."""
    def wait(claude):
        proxy = fault_proxy.FaultProxy(steady.port)
        proxy.plan(error(529, "overloaded_error", retry_after=40))
        try:
            return claude.say(proxy.port, PROMPT, **RETRIES), proxy.gaps()
        finally:
            proxy.close()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for said, gaps in pool.map(wait, claudes):
            assert said == "at last\n"
            assert len(gaps) == 1 and 39.9 < gaps[0] < 52


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


@pytest.mark.parametrize("answer, tries", [
    (error(529, "overloaded_error"), 3), (error(404, "not_found_error", "model: none"), 1),
], ids=["529", "404"])
def test_another_model_that_was_named_takes_over(claude, proxy, answer, tries):
    proxy.plan(*[answer] * tries)
    said = claude.say(proxy.port, PROMPT, "--fallback-model", "claude-haiku-4-5", **RETRIES)
    assert said == "at last\n"
    assert [request.body["model"] for request in proxy.seen()] == (
        ["test"] * tries + ["claude-haiku-4-5"])


def test_a_prompt_that_is_too_long_is_said(claude, proxy):
    proxy.plan(then=error(400, "invalid_request_error", TOO_LONG))
    ended = claude.run(proxy.port, "--print", PROMPT, **RETRIES)
    assert ended.returncode != 0
    assert "prompt is too long" in (ended.stdout + ended.stderr).lower()


@pytest.mark.parametrize("kind", ["api_error", "overloaded_error"])
def test_an_error_in_a_text_makes_it_ask_again(claude, proxy, kind):
    proxy.plan(Stream((message_start(), *text_block("half", stops=False), error_event(kind))))
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "at last\n"
    assert len(proxy.seen()) == 2


def test_an_overload_before_a_text_is_tried_three_times_and_then_without_a_stream(claude, proxy):
    proxy.plan(*[Stream((message_start(), error_event("overloaded_error")))] * 3)
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "at last\n"
    assert streams(proxy) == [True, True, True, False]
    first, second, third = proxy.gaps()
    assert 0.4 < first < 2 and 0.8 < second < 3 and third < 1


@pytest.mark.parametrize("events", [
    HALF, tool_block("Read", ['{"file_path": "/cut'], stops=False)], ids=["text", "input"])
def test_a_reset_in_a_block_makes_it_ask_again(claude, proxy, events):
    """With a stream or without one: what had come is discarded."""
    proxy.plan(Stream((message_start(), *events), resets=True))
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "at last\n"
    assert len(proxy.seen()) == 2


@pytest.mark.parametrize("answer", [
    Stream((message_start(),), resets=True),
    Stream((message_start(), error_event("invalid_request_error", TOO_LONG))),
    Stream(tuple(f"data: {json.dumps(data)}\n\n"
                 for _, data in (message_start(), *text_block("lost"), *end()))),
    Stream((message_start(), *text_block("lost")[1:], *end())),
    Stream((*text_block("lost"), message_start(), *end())),
], ids=["reset-after-start", "too-long-said-late", "no-names-of-events", "delta-before-block",
        "block-before-start"])
def test_a_stream_that_makes_no_sense_is_asked_for_without_one(claude, proxy, answer):
    """A prompt that is too long must be refused before the stream: here nobody reads it."""
    proxy.plan(answer)
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "at last\n"
    assert streams(proxy) == [True, False]


def test_pings_and_comments_change_nothing(claude, proxy):
    fillers = (": a comment\n\n", ("ping", {"type": "ping"}))
    start, *rest = text_block("whole")
    proxy.plan(Stream((*fillers, message_start(), *fillers, start, *fillers, *rest, *fillers,
                       *end())))
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "whole\n"
    assert len(proxy.seen()) == 1


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


def test_an_unknown_tool_is_told_to_the_model(claude, proxy):
    proxy.plan(Stream((message_start(), *tool_block("Nothing", ['{"a": 1}']), *end("tool_use"))))
    result = claude.do(proxy.port, "script: say never; then; say at last", **RETRIES)
    assert result["result"] == "at last"
    told = json.dumps(proxy.seen()[-1].body["messages"])
    assert "No such tool" in told and '"is_error": true' in told


def test_a_call_is_run_whatever_the_stop_reason_says(claude, proxy):
    call = tool_block("Bash", [json.dumps({"command": "echo it ran", "description": "Runs"})])
    proxy.plan(Stream((message_start(), *call, *end("end_turn"))))
    result = claude.do(proxy.port, "script: say never; then; say at last", **RETRIES)
    assert result["result"] == "at last"
    assert "it ran" in json.dumps(proxy.seen()[-1].body["messages"][-1])


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


@pytest.mark.parametrize("reason, words", [
    ("max_tokens", "exceeded the 8192 output token maximum"),
    ("model_context_window_exceeded", "reached its context window limit")])
def test_an_answer_that_is_cut_is_resumed_three_times(claude, proxy, reason, words):
    """Why a full window is a refusal of the next prompt, and never a max_tokens."""
    proxy.plan(then=Stream((message_start(), *text_block("cut"), *end(reason))))
    ended = claude.run(proxy.port, "--print", PROMPT, **RETRIES)
    assert ended.returncode != 0 and words in ended.stdout
    assert len(proxy.seen()) == 4
    assert "Resume directly" in json.dumps(proxy.seen()[-1].body["messages"][-1])


@pytest.mark.parametrize("reason", ["pause_turn", "stop_sequence"])
def test_other_stop_reasons_are_an_end(claude, proxy, reason):
    proxy.plan(Stream((message_start(), *text_block("whole"), *end(reason))))
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "whole\n"
    assert len(proxy.seen()) == 1


def test_a_refusal_ends_the_session(claude, proxy):
    """Why the server never gives that stop reason. The newer one steers the model once."""
    proxy.plan(then=Stream((message_start(), *text_block("no"), *end("refusal"))))
    ended = claude.run(proxy.port, "--print", PROMPT, **RETRIES)
    assert ended.returncode != 0 and "legal/aup" in ended.stdout
    assert len(proxy.seen()) == (2 if claude.is_new else 1)


def test_fewer_tokens_are_asked_for_where_the_window_is_full(claude, proxy):
    proxy.plan(error(400, "invalid_request_error",
                     "input length and `max_tokens` exceed context limit: 60000 + 8192 > 65536, "
                     "decrease input length or `max_tokens` and try again"))
    assert claude.say(proxy.port, PROMPT, **RETRIES) == "at last\n"
    assert [request.body["max_tokens"] for request in proxy.seen()] == [
        8192, 65536 - 60000 - 1000]


def test_a_limit_of_output_is_kept_or_ends_it(claude, proxy):
    """Why max_tokens is clamped, and never refused: the older version gives up."""
    proxy.plan(error(400, "invalid_request_error",
                     "max_tokens: 8192 > 4096, which is the maximum allowed number of output "
                     "tokens for test"))
    ended = claude.run(proxy.port, "--print", PROMPT, **RETRIES)
    asked = [request.body["max_tokens"] for request in proxy.seen()]
    if claude.is_new:
        assert (ended.stdout, asked) == ("at last\n", [8192, 4096])
    else:
        assert ended.returncode != 0 and asked == [8192]


def test_a_refused_output_config_ends_it(claude, proxy):
    proxy.plan(error(400, "invalid_request_error", NO_EXTRAS))
    ended = claude.run(proxy.port, "--print", PROMPT, **RETRIES)
    assert ended.returncode != 0 and NO_EXTRAS in ended.stdout
    assert len(proxy.seen()) == 1


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
