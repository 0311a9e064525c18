"""The official OpenAI SDK against the server: the tools that people already have work too."""

import json

import openai
import pydantic
import pytest
from harness import SMOLLM2_ID, raw, wait_until

HI = [{"role": "user", "content": "script: say hello there"}]
WEATHER = {"type": "function", "function": {
    "name": "weather", "strict": True, "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}},
                   "required": ["city"], "additionalProperties": False}}}


def client_of(server, **more):
    return openai.OpenAI(**{"api_key": "none", "base_url": f"{server.url}/v1", "max_retries": 0,
                            **more})


def test_a_completion_is_typed(scripted):
    answer = client_of(scripted).chat.completions.create(model="test", messages=HI)
    assert answer.choices[0].message.content == "hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 2
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 2
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0
    assert answer._request_id.startswith("req_")


def test_a_stream_gives_text_as_it_comes(scripted):
    chunks = list(client_of(scripted).chat.completions.create(
        model="test", messages=HI, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello there"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_of_a_stream_is_its_last_chunk_where_it_is_asked_for(scripted):
    chunks = list(client_of(scripted).chat.completions.create(
        model="test", messages=HI, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 2
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_ends_with_done_for_those_who_read_it_by_hand(scripted):
    request = json.dumps({"model": "test", "messages": HI, "stream": True}).encode()
    answer = raw(scripted, b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                 b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(request), request))
    assert b"data: [DONE]\n\n" in answer


@pytest.mark.parametrize("fields,text,reason", [
    ({"max_tokens": 2}, "one two", "length"),
    ({"max_completion_tokens": 1}, "one", "length"),
    ({"stop": " three"}, "one two", "stop"), ({"stop": ["\n", "two"]}, "one ", "stop")])
def test_limits_and_stops_hold(scripted, fields, text, reason):
    answer = client_of(scripted).chat.completions.create(
        model="test", messages=[{"role": "user", "content": "script: say one two three four"}],
        **fields)
    assert answer.choices[0].message.content == text
    assert answer.choices[0].finish_reason == reason


def test_system_and_developer_messages_are_the_messages_apis(scripted):
    answer = client_of(scripted).chat.completions.create(model="test", messages=[
        {"role": "developer", "content": "Be brief."}, *HI])
    counted = scripted.http.post("/v1/messages/count_tokens", json={
        "model": "test", "system": "Be brief.", "messages": HI})
    assert answer.usage.prompt_tokens == counted.json()["input_tokens"]


@pytest.mark.parametrize("choice", ["required", {"type": "function",
                                                 "function": {"name": "weather"}}])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_result_goes_back(smollm2, choice, streamed):
    client = client_of(smollm2)
    request = {"model": SMOLLM2_ID, "tools": [WEATHER], "tool_choice": choice, "temperature": 0,
               "parallel_tool_calls": False, "max_tokens": 200,
               "messages": [{"role": "user", "content": "What is the weather in Rome?"}]}
    if streamed:
        with client.chat.completions.stream(**request) as stream:
            stream.until_done()
            answer = stream.get_final_completion()
    else:
        answer = client.chat.completions.create(**request)
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert len(message.tool_calls) == 1
    call = message.tool_calls[0]
    assert call.function.name == "weather"
    arguments = json.loads(call.function.arguments)
    assert list(arguments) == ["city"] and isinstance(arguments["city"], str)
    more = client.chat.completions.create(
        model=SMOLLM2_ID, tools=[WEATHER], tool_choice="none", max_tokens=20,
        messages=[*request["messages"],
                  {"role": "assistant", "content": None, "tool_calls": [
                      {"id": call.id, "type": "function", "function": {
                          "name": call.function.name, "arguments": call.function.arguments}}]},
                  {"role": "tool", "tool_call_id": call.id, "content": "sunny"}])
    assert more.choices[0].message.content
    assert not more.choices[0].message.tool_calls


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)
    age: int = pydantic.Field(ge=0, le=120)


def test_an_answer_keeps_its_schema(smollm2):
    answer = client_of(smollm2).chat.completions.parse(
        model=SMOLLM2_ID, response_format=Person, max_tokens=200, temperature=0,
        messages=[{"role": "user", "content": "Invent a person."}])
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_models_are_listed_and_found(scripted):
    client = client_of(scripted)
    listed = list(client.models.list())
    assert [model.id for model in listed] == ["test"]
    assert listed[0].object == "model" and listed[0].created > 0
    assert client.models.retrieve("test").id == "test"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")


@pytest.mark.parametrize("change,error", [
    ({"n": 2}, openai.BadRequestError), ({"model": "none"}, openai.NotFoundError),
    ({"messages": []}, openai.BadRequestError), ({"temperature": 3}, openai.BadRequestError),
    ({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}]}]},
     openai.BadRequestError)])
def test_errors_arrive_as_the_sdks_classes(scripted, change, error):
    with pytest.raises(error) as raised:
        client_of(scripted).chat.completions.create(**{"model": "test", "messages": HI, **change})
    assert raised.value.body["message"]
    assert raised.value.request_id.startswith("req_")


def test_embeddings_are_refused_by_name(scripted):
    with pytest.raises(openai.BadRequestError) as raised:
        client_of(scripted).embeddings.create(model="test", input="x")
    assert "no embeddings" in raised.value.body["message"]


def test_a_wrong_key_and_short_memory_have_their_classes(serve_script, serve_short_of_memory):
    server = serve_script(env={"PENSIEVE_SERVER_API_KEY": "sesame"})
    with pytest.raises(openai.AuthenticationError):
        client_of(server).chat.completions.create(model="test", messages=HI)
    client = client_of(server, api_key="sesame")
    assert client.chat.completions.create(model="test", messages=HI).choices
    with pytest.raises(openai.InternalServerError) as raised:
        client_of(serve_short_of_memory("Critical")).chat.completions.create(
            model="test", messages=HI)
    assert raised.value.status_code == 503
    assert raised.value.response.headers["retry-after"]


def test_an_error_in_the_stream_raises(serve_script):
    with pytest.raises(openai.APIError) as raised:
        list(client_of(serve_script()).chat.completions.create(model="test", stream=True, messages=[
            {"role": "user", "content": "script: say one; abort; say two"}]))
    assert "worker ended" in str(raised.value)


def test_who_hangs_up_frees_the_model(serve_script):
    server = serve_script()
    with client_of(server).chat.completions.create(model="test", stream=True, messages=[
            {"role": "user", "content": "script: delay 20; endless x"}]) as stream:
        next(iter(stream))
        wait_until(lambda: server.running_requests() == 1, 10, "the request to run")
    wait_until(lambda: server.running_requests() == 0, 10, "the request to end")
