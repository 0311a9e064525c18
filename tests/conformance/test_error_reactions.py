"""What the SDKs do with each error: which class, tried again or not, how often, after how long.

The proxy gives the errors, because the server has no reason for some of them and cannot be brought
to give others at will. What a client tries again then reaches the real server and is answered.
"""

import fault_proxy
import pytest
from fault_proxy import Reset, Stream, error, error_event, message_start, text_block
from sdk_clients import SdkError

REQUEST = {"model": "test", "max_tokens": 50,
           "messages": [{"role": "user", "content": "script: say at last"}]}

# Names that differ between the versions: (new, old Python, old TypeScript).
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
    (502, "api_error", True, ("InternalServerError",) * 3),
    (503, "overloaded_error", True,
     ("ServiceUnavailableError", "InternalServerError", "InternalServerError")),
    (504, "timeout_error", True,
     ("GatewayTimeoutError", "InternalServerError", "InternalServerError")),
    (529, "overloaded_error", True, ("OverloadedError", "OverloadedError", "InternalServerError")),
]


def name_in(sdk, names):
    return names[0 if sdk.is_new else 1 if sdk.language == "python" else 2]


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


def test_should_retry_false_ends_it_whatever_the_status(sdk, proxy):
    proxy.plan(then=error(503, "api_error", x_should_retry="false"))
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


@pytest.mark.parametrize("kind", ["overloaded_error", "api_error", "invalid_request_error"])
def test_an_error_in_a_stream_raises_and_is_not_tried_again(sdk, proxy, kind):
    proxy.plan(Stream((message_start(), *text_block("half", stops=False), error_event(kind))))
    with pytest.raises(SdkError) as raised:
        sdk.ok(proxy.url, "stream", REQUEST, {"max_retries": 2})
    assert len(proxy.seen()) == 1
    assert raised.value.type == kind


def test_a_reset_in_a_stream_raises_and_is_not_tried_again(sdk, proxy):
    proxy.plan(Stream((message_start(), *text_block("half", stops=False)), resets=True))
    with pytest.raises(SdkError):
        sdk.ok(proxy.url, "stream", REQUEST, {"max_retries": 2})
    assert len(proxy.seen()) == 1


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
                             "delta": {"type": "text_delta", "text": ""}})],
    ids=["ping", "unknown-event", "empty-delta"])
def test_what_keeps_a_stream_alive_changes_nothing(sdk, proxy, filler):
    start, *rest = text_block("whole")
    proxy.plan(Stream((message_start(), start, filler, *rest, *fault_proxy.end())))
    seen = sdk.ok(proxy.url, "stream", REQUEST)
    assert seen["text"] == "whole"
