"""The official Python SDK against the server: what its users write, unchanged."""

import socket
import threading

import anthropic
import pytest
from harness import SMOLLM2_ID


def client_of(server, **more):
    return anthropic.Anthropic(api_key="not-a-real-key", base_url=server.url, **more)


HELLO = {"model": SMOLLM2_ID, "max_tokens": 16,
         "messages": [{"role": "user", "content": "Say hello."}]}


def test_create_returns_a_typed_message(smollm2):
    message = client_of(smollm2).messages.create(**HELLO)
    assert message.role == "assistant"
    assert message.content[0].type == "text"
    assert message.content[0].text
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert 1 <= message.usage.output_tokens <= 16
    assert message._request_id.startswith("req_")


def test_stream_gives_text_as_it_comes_and_then_the_message(smollm2):
    with client_of(smollm2).messages.stream(**HELLO) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == message.content[0].text != ""
    assert message.usage.output_tokens >= 1
    assert message.usage.input_tokens + message.usage.cache_read_input_tokens > 0


def test_create_with_stream_gives_the_events(smollm2):
    events = list(client_of(smollm2).messages.create(**HELLO, stream=True))
    assert [events[0].type, events[-1].type] == ["message_start", "message_stop"]


def test_the_beta_namespace_works_too(smollm2):
    message = client_of(smollm2).beta.messages.create(**HELLO, betas=["made-up-2026-01-01"])
    assert message.content[0].text


def test_count_tokens_agrees_with_usage(smollm2):
    client = client_of(smollm2)
    counted = client.messages.count_tokens(model=SMOLLM2_ID, messages=HELLO["messages"])
    usage = client.messages.create(**HELLO).usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_models_are_paged_through_by_iterating(smollm2):
    client = client_of(smollm2)
    names = [model.id for model in client.models.list(limit=1)]
    assert len(names) == len(set(names)) >= 1
    assert client.models.retrieve(names[0]).id == names[0]


def test_a_models_window_and_capabilities_are_typed(smollm2):
    model = client_of(smollm2).models.retrieve(SMOLLM2_ID)
    assert model.max_input_tokens == 8192
    assert model.lifecycle == "active"
    assert model.capabilities.thinking.types.adaptive.supported is False
    assert model.capabilities.effort.supported is False
    assert model.capabilities.structured_outputs.supported is True


def test_a_tool_runner_falls_back_from_threads(smollm2):
    @anthropic.beta_tool
    def add(a: int, b: int) -> str:
        """Adds two numbers."""
        return str(a + b)

    runner = client_of(smollm2).beta.messages.tool_runner(tools=[add], **HELLO)
    last = runner.until_done()
    assert last.role == "assistant"


@pytest.mark.parametrize("change,error", [
    ({"max_tokens": -1}, anthropic.BadRequestError),
    ({"model": "no-such-model"}, anthropic.NotFoundError),
    ({"messages": [{"role": "user", "content": "word " * 20_000}]}, anthropic.BadRequestError)])
def test_errors_arrive_as_the_sdks_classes(smollm2, change, error):
    with pytest.raises(error) as raised:
        client_of(smollm2, max_retries=0).messages.create(**{**HELLO, **change})
    assert raised.value.request_id.startswith("req_")
    assert raised.value.body["error"]["message"]


def test_a_wrong_key_is_an_authentication_error(serve_script):
    server = serve_script(env={"PENSIEVE_SERVER_API_KEY": "sesame"})
    with pytest.raises(anthropic.AuthenticationError):
        client_of(server).messages.create(**{**HELLO, "model": "test"})


def test_critical_memory_is_a_service_unavailable_error(serve_short_of_memory):
    server = serve_short_of_memory("Critical")
    with pytest.raises(anthropic.ServiceUnavailableError) as raised:
        client_of(server, max_retries=0).messages.create(**{**HELLO, "model": "test"})
    assert raised.value.response.headers["x-memory-status"] == "Critical"
    assert raised.value.body["error"]["type"] == "overloaded_error"


def test_an_error_in_the_stream_raises(serve_script):
    server = serve_script()
    prompt = {**HELLO, "model": "test",
              "messages": [{"role": "user", "content": "script: say one; abort; say two"}]}
    with pytest.raises(anthropic.APIStatusError), client_of(server).messages.stream(**prompt) as s:
        for _ in s.text_stream:
            pass


def test_a_first_try_that_was_refused_is_repeated_by_the_sdk(serve_script):
    server = serve_script("--parallel", "1", env={"PENSIEVE_SERVER_QUEUE_MAX": "1"})
    client = client_of(server, max_retries=4)
    long = {**HELLO, "model": "test", "max_tokens": 1000,
            "messages": [{"role": "user", "content": "script: delay 20; repeat 60 x"}]}
    with client.messages.stream(**long) as first, client.messages.stream(**long) as second:
        message = client.messages.create(**{**long, "messages": [
            {"role": "user", "content": "script: say third"}]})
        assert message.content[0].text == "third"
        first.until_done()
        second.until_done()


@pytest.fixture
def canned(request):
    """A server that answers every request with the chunks that the test names, or cuts them off."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked = []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                asked.append(head)
                connection.sendall(request.param)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
WHOLE = (b'{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text",'
         b'"text":"hi"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":1,'
         b'"output_tokens":1}}')
ERROR = b'{"type":"error","error":{"type":"api_error","message":"it broke"},"request_id":"req_1"}'


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.mark.parametrize(
    "canned", [CHUNKED + chunk(b" ") * 3 + chunk(WHOLE) + b"0\r\n\r\n"], indirect=True)
def test_spaces_in_front_of_a_late_answer_do_not_matter(canned):
    """docs/design/long-silences.md: what the server sends where an answer takes minutes."""
    client = anthropic.Anthropic(api_key="not-a-real-key", base_url=canned[0])
    assert client.messages.create(**HELLO).content[0].text == "hi"


@pytest.mark.parametrize("canned", [CHUNKED + chunk(b" ") + chunk(ERROR)], indirect=True)
def test_a_late_answer_that_is_cut_off_is_an_error_and_tried_again(canned):
    url, asked = canned
    client = anthropic.Anthropic(api_key="not-a-real-key", base_url=url, max_retries=1)
    with pytest.raises(anthropic.APIConnectionError):
        client.messages.create(**HELLO)
    assert len(asked) == 2
