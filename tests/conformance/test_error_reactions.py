"""What the SDKs do with each error: which class, tried again or not, how often, after how long.

The proxy gives the errors, because the server has no reason for some of them and cannot be brought
to give others at will. What a client tries again then reaches the real server and is answered.
"""

import json
import socket

import pytest
from fault_proxy import (Reset, Silence, Stream, end, error, error_event, message_start, text_block,
                         tool_block)
from sdk_clients import SdkError

REQUEST = {"model": "test", "max_tokens": 50,
           "messages": [{"role": "user", "content": "script: say at last"}]}

# Names that differ: (new, old Python, old TypeScript), and new TypeScript where it is not as new
# Python.
STATUSES = [  # status, error.type, tried again, class
    (400, "invalid_request_error", False, ("BadRequestError",) * 3),
    (401, "authentication_error", False, ("AuthenticationError",) * 3),
    (402, "billing_error", False, ("PaymentRequiredError", "APIStatusError", "APIError")),
    (403, "permission_error", False, ("PermissionDeniedError",) * 3),
    (404, "not_found_error", False, ("NotFoundError",) * 3),
    (408, "timeout_error", True, ("RequestTimeoutError", "APIStatusError", "APIError")),
    (409, "conflict_error", True, ("ConflictError",) * 3),
    (413, "request_too_large", False, ("ContentTooLargeError", "RequestTooLargeError", "APIError")),
    (422, "invalid_request_error", False, ("UnprocessableEntityError",) * 3),
    (429, "rate_limit_error", True, ("RateLimitError",) * 3),
    (500, "api_error", True, ("InternalServerError",) * 3),
    (501, "not_supported", True,
     ("HTTPNotImplementedError", "InternalServerError", "InternalServerError",
      "NotImplementedError")),
    (502, "api_error", True, ("InternalServerError",) * 3),
    (503, "overloaded_error", True,
     ("ServiceUnavailableError", "InternalServerError", "InternalServerError")),
    (504, "timeout_error", True,
     ("GatewayTimeoutError", "InternalServerError", "InternalServerError")),
    (529, "overloaded_error", True, ("OverloadedError", "OverloadedError", "InternalServerError")),
]


def name_in(sdk, names):
    if sdk.is_new:
        return names[-1] if len(names) == 4 and sdk.language == "typescript" else names[0]
    return names[1 if sdk.language == "python" else 2]


@pytest.mark.parametrize("status, kind, retried, names", STATUSES,
                         ids=[str(row[0]) for row in STATUSES])
def test_a_status_has_its_class_and_is_tried_again_or_not(sdk, proxy, status, kind, retried,
                                                          names):
    proxy.plan(then=error(status, kind))
    with pytest.raises(SdkError) as raised:
        sdk.ok(proxy.url, "create", REQUEST, {"max_retries": 1})
    assert len(proxy.seen()) == (2 if retried else 1)
    assert raised.value.name == name_in(sdk, names)
    assert (raised.value.status, raised.value.type) == (status, kind)
    assert raised.value.request_id == "req_proxy"


def test_the_pauses_double_from_half_a_second(sdk, proxy):
    proxy.plan(*[error(503, "overloaded_error")] * 2)
    seen = sdk.ok(proxy.url, "create", REQUEST, {"max_retries": 2})
    assert seen["message"]["content"][0]["text"] == "at last"
    first, second = proxy.gaps()
    # 0.5 and 1 s, less up to a quarter; what is above is this machine.
    assert 0.37 < first < 1.5
    assert 0.74 < second < 2.5


def test_two_retries_are_what_an_sdk_does_by_itself(sdk, proxy):
    proxy.plan(then=error(503, "overloaded_error", retry_after=0))
    with pytest.raises(SdkError):
        sdk.ok(proxy.url, "create", REQUEST, {"max_retries": 2})
    counts = [request.headers["x-stainless-retry-count"] for request in proxy.seen()]
    assert counts == ["0", "1", "2"]


def test_retry_after_is_obeyed(sdk, proxy):
    proxy.plan(error(529, "overloaded_error", retry_after=2))
    sdk.ok(proxy.url, "create", REQUEST, {"max_retries": 1})
    assert 1.95 < proxy.gaps()[0] < 3.5


@pytest.mark.parametrize("status, kind", [
    (429, "rate_limit_error"), (501, "not_supported"), (503, "api_error"),
    (529, "overloaded_error")])
def test_should_retry_false_ends_it_whatever_the_status(sdk, proxy, status, kind):
    proxy.plan(then=error(status, kind, x_should_retry="false"))
    with pytest.raises(SdkError):
        sdk.ok(proxy.url, "create", REQUEST, {"max_retries": 2})
    assert len(proxy.seen()) == 1


def test_should_retry_true_makes_even_a_400_come_again(sdk, proxy):
    proxy.plan(error(400, "invalid_request_error", x_should_retry="true"))
    seen = sdk.ok(proxy.url, "create", REQUEST, {"max_retries": 1})
    assert seen["message"]["content"][0]["text"] == "at last"
    assert len(proxy.seen()) == 2


def test_a_reset_before_the_answer_is_tried_again(sdk, proxy):
    proxy.plan(Reset())
    seen = sdk.ok(proxy.url, "create", REQUEST, {"max_retries": 1})
    assert seen["message"]["content"][0]["text"] == "at last"
    assert len(proxy.seen()) == 2


def test_silence_is_a_timeout_that_is_tried_again(sdk, proxy):
    """A timeout of the client's own, which is a connection error to those who catch that."""
    proxy.plan(then=Silence())
    with pytest.raises(SdkError) as raised:
        sdk.ok(proxy.url, "create", REQUEST, {"timeout": 0.3, "max_retries": 1})
    assert raised.value.name == (
        "APITimeoutError" if sdk.language == "python" else "APIConnectionTimeoutError")
    assert raised.value.status is None
    assert len(proxy.seen()) == 2
    assert 2 * 0.3 < raised.value.seconds < 5


def test_where_nobody_listens_there_is_a_connection_error(sdk):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # Not listened at: whoever connects is refused.
        with pytest.raises(SdkError) as raised:
            sdk.ok(f"http://127.0.0.1:{unused.getsockname()[1]}", "create", REQUEST)
    assert (raised.value.name, raised.value.status) == ("APIConnectionError", None)


def test_a_reset_without_retries_is_a_connection_error(sdk, proxy):
    proxy.plan(then=Reset())
    with pytest.raises(SdkError) as raised:
        sdk.ok(proxy.url, "create", REQUEST)
    assert (raised.value.name, raised.value.status) == ("APIConnectionError", None)
    assert len(proxy.seen()) == 1


HALF = text_block("half", stops=False)
HALF_INPUT = tool_block("read", ['{"path": "/cut'], stops=False)


@pytest.mark.parametrize("came", [(), HALF], ids=["before-a-block", "in-a-text"])
@pytest.mark.parametrize("kind", ["overloaded_error", "api_error", "invalid_request_error"])
def test_an_error_in_a_stream_raises_and_is_not_tried_again(sdk, proxy, kind, came):
    proxy.plan(Stream((message_start(), *came, error_event(kind))))
    with pytest.raises(SdkError) as raised:
        sdk.ok(proxy.url, "stream", REQUEST, {"max_retries": 2})
    assert len(proxy.seen()) == 1
    assert raised.value.type == kind


@pytest.mark.parametrize("came", [(), HALF, HALF_INPUT],
                         ids=["before-a-block", "in-a-text", "in-an-input"])
def test_a_reset_in_a_stream_raises_and_is_not_tried_again(sdk, proxy, came):
    proxy.plan(Stream((message_start(), *came), resets=True))
    with pytest.raises(SdkError):
        sdk.ok(proxy.url, "stream", REQUEST, {"max_retries": 2})
    assert len(proxy.seen()) == 1


def test_events_without_names_are_not_seen(sdk, proxy):
    proxy.plan(Stream(tuple(f"data: {json.dumps(data)}\n\n" for _, data in (
        message_start(), *text_block("lost"), *end()))))
    with pytest.raises(SdkError):
        sdk.ok(proxy.url, "stream", REQUEST)


def test_what_comes_before_message_start_is_lost_or_raises(sdk, proxy):
    """Why an answer begins with message_start: the new SDKs say nothing of what they drop."""
    proxy.plan(Stream((*text_block("lost"), message_start(), *end())))
    if sdk.is_new:
        assert sdk.ok(proxy.url, "stream", REQUEST)["message"]["content"] == []
    else:
        with pytest.raises(SdkError):
            sdk.ok(proxy.url, "stream", REQUEST)


@pytest.mark.parametrize("reason", ["model_context_window_exceeded", "refusal", "pause_turn"])
def test_a_stop_reason_is_handed_on(sdk, proxy, reason):
    proxy.plan(Stream((message_start(), *text_block("whole"), *end(reason))))
    seen = sdk.ok(proxy.url, "stream", REQUEST)
    assert (seen["text"], seen["message"]["stop_reason"]) == ("whole", reason)


def test_a_stream_without_its_end_is_why_the_server_always_says_error(sdk, proxy):
    """The Python SDKs take half an answer for a whole one; the others raise."""
    proxy.plan(Stream((message_start(), *text_block("half"))))
    if sdk.language == "python":
        seen = sdk.ok(proxy.url, "stream", REQUEST)
        assert seen["message"]["stop_reason"] is None
    else:
        with pytest.raises(SdkError, match="without"):
            sdk.ok(proxy.url, "stream", REQUEST)


@pytest.mark.parametrize("filler", [
    ("ping", {"type": "ping"}),
    ("made_up", {"type": "made_up", "a": 1}),
    ("content_block_delta", {"type": "content_block_delta", "index": 0,
                             "delta": {"type": "text_delta", "text": ""}}),
    ": a comment\n\n"],
    ids=["ping", "unknown-event", "empty-delta", "comment"])
def test_what_keeps_a_stream_alive_changes_nothing(sdk, proxy, filler):
    start, *rest = text_block("whole")
    proxy.plan(Stream((message_start(), start, filler, *rest, *end())))
    seen = sdk.ok(proxy.url, "stream", REQUEST)
    assert seen["text"] == "whole"
