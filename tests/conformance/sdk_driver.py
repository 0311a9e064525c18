"""Does with the Python SDK of this interpreter what each line of its input asks for.

One JSON object a line in, one a line out: {"ok": ...} or {"error": ...}. sdk_driver.mjs speaks the
same language, so that one test goes through all SDKs. Runs in a venv that has only the SDK.
"""

import contextlib
import inspect
import json
import sys
import time

import anthropic
import pydantic


class Person(pydantic.BaseModel):
    """What parse() is to find in an answer."""

    name: str
    age: int


def namespace(client, beta):
    return client.beta.messages if beta else client.messages


def fitted(method, request):
    """The request with what the method has no argument for as its extra_body, as users do it."""
    known = inspect.signature(method).parameters
    extra = {key: value for key, value in request.items() if key not in known}
    typed = {key: value for key, value in request.items() if key in known}
    return typed | ({"extra_body": extra} if extra else {})


def shown(message):
    """A message as plain data, with the id that the SDK took from the header."""
    return {"message": message.to_dict(mode="json"), "request_id": message._request_id}


def create(client, request, beta=False):
    method = namespace(client, beta).create
    return shown(method(**fitted(method, request)))


def stream(client, request, beta=False):
    method = namespace(client, beta).stream
    with method(**fitted(method, request)) as answer:
        text = "".join(answer.text_stream)
        final = answer.get_final_message()
    return {"text": text, "message": final.to_dict(mode="json"), "request_id": answer.request_id}


def events(client, request):
    return [event.to_dict(mode="json") for event in client.messages.create(**request, stream=True)]


def abort(client, request):
    """Hangs up after the first piece of text."""
    with client.messages.stream(**request) as answer:
        for _ in answer.text_stream:
            break
    return True


def count_tokens(client, request, beta=False):
    return namespace(client, beta).count_tokens(**request).input_tokens


def models(client, request):
    return [model.to_dict(mode="json") for model in client.models.list(**request)]


def model(client, request):
    return client.models.retrieve(request["id"]).to_dict(mode="json")


def tool_runner(client, request):
    """A loop of the SDK's own over tools that add numbers, read a file, and fail."""
    calls = []

    @anthropic.beta_tool
    def add(a: int, b: int) -> str:
        """Adds two numbers."""
        calls.append(["add", {"a": a, "b": b}])
        return str(a + b)

    @anthropic.beta_tool
    def read(path: str) -> str:
        """Reads a file."""
        calls.append(["read", {"path": path}])
        return f"the text of {path}"

    @anthropic.beta_tool
    def fails(why: str) -> str:
        """Fails."""
        calls.append(["fails", {"why": why}])
        raise RuntimeError(why)

    runner = client.beta.messages.tool_runner(tools=[add, read, fails], **request)
    if not request.get("stream"):
        messages = [message.to_dict(mode="json") for message in runner]
    else:
        messages = [answer.get_final_message().to_dict(mode="json") for answer in runner]
    return {"calls": calls, "messages": messages}


def parse(client, request, beta=False):
    messages = namespace(client, beta or not hasattr(client.messages, "parse"))
    message = messages.parse(**fitted(messages.parse, request), output_format=Person)
    return {"parsed": message.parsed_output.model_dump(), "message": message.to_dict(mode="json")}


def batch(client, request):
    """One call of the batches resource: `call` and its arguments."""
    batches = client.messages.batches
    answer = getattr(batches, request["call"])(**request.get("arguments", {}))
    if request["call"] in ("list", "results"):
        return [entry.to_dict(mode="json") for entry in answer]
    return answer.to_dict(mode="json")


OPERATIONS = {operation.__name__: operation for operation in (
    create, stream, events, abort, count_tokens, models, model, tool_runner, parse, batch)}


def described(error):
    """An exception as data: what a program that catches it can see."""
    seen = {"class": type(error).__name__, "message": str(error)}
    if isinstance(error, anthropic.APIStatusError):
        content = error.body if isinstance(error.body, dict) else {}
        seen |= {"status": error.status_code, "request_id": error.request_id,
                 "type": (content.get("error") or {}).get("type")}
    return seen


def answer_to(command):
    start = time.monotonic()
    with anthropic.Anthropic(**command["client"]) as client:
        operation = OPERATIONS[command["op"]]
        try:
            answer = {"ok": operation(client, command["request"], **command.get("more", {}))}
        except Exception as error:
            # The SDK lets its transport's errors through in the middle of a stream, and asserts
            # and raises RuntimeError where a stream makes no sense.
            expected = isinstance(error, anthropic.AnthropicError | pydantic.ValidationError |
                                  AssertionError | RuntimeError)
            if not expected and not type(error).__module__.startswith("httpx"):
                raise
            answer = {"error": described(error)}
    return answer | {"seconds": time.monotonic() - start}


def main():
    with contextlib.redirect_stdout(sys.stderr):  # What the SDK or a tool prints is no answer.
        for line in sys.stdin:
            sys.__stdout__.write(json.dumps(answer_to(json.loads(line))) + "\n")
            sys.__stdout__.flush()


if __name__ == "__main__":
    main()
