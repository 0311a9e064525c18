"""Real Claude Code on exact scripts: its tools read and edit files, and nothing of it is simulated.

The scripted engine says what a model would; the proxy counts and keeps what the client sends.
"""

import json
import os
import signal

import claude_code
import fault_proxy
import pytest
from harness import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def call(name, **given):
    return f"call {name} {json.dumps(given)}"


def script(*turns):
    return "script: " + "; then; ".join(turns)


def results_of(request):
    """The tool results in the last user message of a request, by text."""
    texts = []
    for message in request.body["messages"]:
        if message["role"] != "user" or isinstance(message["content"], str):
            continue
        for block in message["content"]:
            if block["type"] != "tool_result":
                continue
            content = block["content"]
            texts.append(content if isinstance(content, str)
                         else "".join(part.get("text", "") for part in content))
    return texts


def test_a_plain_answer_is_printed_word_for_word(claude, steady):
    assert claude.say(steady.port, "script: say exactly these words") == "exactly these words\n"


def test_an_answer_is_streamed_as_json(claude, steady):
    out = claude.say(steady.port, "script: say one two", "--output-format", "stream-json",
                     "--verbose", "--include-partial-messages")
    lines = [json.loads(line) for line in out.splitlines()]
    deltas = [line["event"]["delta"]["text"] for line in lines if line["type"] == "stream_event"
              and line["event"]["type"] == "content_block_delta"]
    assert "".join(deltas) == lines[-1]["result"] == "one two"
    assert lines[-1]["usage"]["output_tokens"] >= 2


def test_it_reads_and_edits_a_file(claude, proxy):
    file = claude.project / "colour.txt"
    file.write_text("the sky is red\nand wide\n")
    result = claude.do(proxy.port, script(
        call("Read", file_path=str(file)),
        call("Edit", file_path=str(file), old_string="red", new_string="blue"),
        "say It is blue now."))
    assert file.read_text() == "the sky is blue\nand wide\n"
    assert result["result"] == "It is blue now."
    assert result["num_turns"] >= 3
    read = results_of(proxy.seen()[1])
    assert "the sky is red" in read[0]


def test_it_writes_a_file_and_runs_a_command(claude, proxy):
    file = claude.project / "greet.sh"
    result = claude.do(proxy.port, script(
        call("Write", file_path=str(file), content="echo hello from the file\n"),
        call("Bash", command=f"sh {file}", description="Runs it"),
        "say Done."))
    assert file.read_text() == "echo hello from the file\n"
    assert "hello from the file" in results_of(proxy.seen()[-1])[-1]
    assert result["result"] == "Done."


def test_calls_of_one_answer_are_all_answered(claude, proxy):
    files = [claude.project / f"{number}.txt" for number in range(3)]
    for number, file in enumerate(files):
        file.write_text(f"number {number}\n")
    calls = "; ".join(call("Read", file_path=str(file)) for file in files)
    assert claude.do(proxy.port, script(calls, "say read"))["result"] == "read"
    texts = " ".join(results_of(proxy.seen()[-1]))
    assert all(f"number {number}" in texts for number in range(3))


def test_a_tool_that_fails_is_told_to_the_model(claude, proxy):
    missing = claude.project / "missing.txt"
    result = claude.do(proxy.port, script(call("Read", file_path=str(missing)), "say I see."))
    assert result["result"] == "I see."
    assert "not exist" in results_of(proxy.seen()[-1])[0]


def test_wrong_arguments_are_told_to_the_model(claude, proxy):
    result = claude.do(proxy.port, script(call("Read", wrong=1), "say I see."))
    assert result["result"] == "I see."
    assert results_of(proxy.seen()[-1])


def test_continue_and_resume_go_on_with_the_conversation(claude, proxy):
    first = claude.do(proxy.port, "script: say first")
    claude.do(proxy.port, "script: say second", "--continue")
    third = claude.do(proxy.port, "script: say third", "--resume", first["session_id"])
    assert third["result"] == "third"
    said = json.dumps(proxy.seen()[-1].body["messages"])
    assert said.index("say first") < said.index("say second") < said.index("say third")
    # A later turn finds what was computed for the earlier one.
    assert third["usage"]["cache_read_input_tokens"] > 0.9 * (
        first["usage"]["input_tokens"] + first["usage"]["cache_read_input_tokens"])


def test_sub_agents_work_in_parallel(claude, proxy):
    name = "Agent" if claude.is_new else "Task"
    agents = "; ".join(
        call(name, description=f"agent {number}", subagent_type="general-purpose",
             run_in_background=False,
             prompt=f"script: delay 20\nrepeat 60 word\nsay agent {number} is done")
        for number in range(3))
    result = claude.do(proxy.port, script(agents, "say all came back"))
    assert result["result"] == "all came back"
    texts = " ".join(results_of(proxy.seen()[-1]))
    assert all(f"agent {number} is done" in texts for number in range(3))
    # Each takes more than a second; one after the other they could not begin within one.
    starts = [request.seconds for request in proxy.seen()
              if request.headers.get("x-claude-code-agent-id") or _is_sub_agent(request)]
    assert len(starts) == 3
    assert max(starts) - min(starts) < 1.0


def _is_sub_agent(request):
    text = json.dumps(request.body["messages"][:1])
    return "repeat 60 word" in text and "script: call" not in text


def test_a_schema_gives_structured_output(claude, proxy):
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}},
              "required": ["answer"], "additionalProperties": False}
    result = claude.do(proxy.port, script(call("StructuredOutput", answer=42), "say ok"),
                       "--json-schema", json.dumps(schema))
    assert result["structured_output"] == {"answer": 42}


def test_a_web_search_comes_back_as_unavailable(claude, proxy):
    """WebSearch asks the server to search, in a request of its own."""
    result = claude.do(proxy.port, script(call("WebSearch", query="script: say nothing"), "say ok"),
                       ENABLE_TOOL_SEARCH="false")
    assert result["result"] == "ok"
    searches = [request.body for request in proxy.seen()
                if [tool.get("type") for tool in request.body.get("tools", [])]
                == ["web_search_20250305"]]
    assert len(searches) == 1
    assert "unavailable" in results_of(proxy.seen()[-1])[-1]


def test_context_is_counted_by_the_server(claude, proxy):
    """Without the server's counts the client shows estimates of its own, and says nothing."""
    out = claude.say(proxy.port, "/context")
    counted = proxy.counted()
    assert len(counted) >= 10
    assert {count.status for count in counted} == {200}
    assert claude_code.tokens_shown(out, "System prompt") == claude_code.rounded(
        claude_code.system_prompt_tokens(counted)), out


def test_an_interrupt_frees_the_place(claude, steady):
    process = claude.start(steady.port, "--print", "script: delay 50; endless word")
    wait_until(lambda: steady.running_requests() == 1, 30, "a running request")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    wait_until(lambda: steady.running_requests() == 0, 5, "a freed place")


FILLER = "word " * 6000


def compactions(proxy):
    """The requests that ask for a summary of the conversation."""
    return [request for request in proxy.seen()
            if "summary of the conversation" in json.dumps(request.body["messages"][-2:])]


@pytest.fixture
def small(serve_script):
    """A proxy in front of a server whose window a conversation overflows soon."""
    server = serve_script("--context", "32768", model={"context_tokens": 32768})
    proxy = fault_proxy.FaultProxy(server.port)
    yield proxy
    proxy.close()


def test_a_conversation_that_fills_the_window_is_compacted_and_goes_on(claude, small):
    """36,000 words do not fit: only a summary in the place of the first turns makes it go on."""
    for number in range(6):
        arguments = ("--continue",) if number else ()
        result = claude.do(small.port, f"{FILLER}\nscript: say answer {number}", *arguments)
        assert result["result"] == f"answer {number}", result
    assert compactions(small)
    assert json.dumps(small.seen()[-1].body).count("word ") < 5 * 6000


def test_a_prompt_that_the_server_calls_too_long_is_compacted_and_sent_again(claude, proxy):
    for number in range(3):
        arguments = ("--continue",) if number else ()
        claude.do(proxy.port, f"script: say answer {number}", *arguments)
    proxy.plan(fault_proxy.error(400, "invalid_request_error",
                                 "prompt is too long: 70000 tokens > 65536 maximum"))
    result = claude.do(proxy.port, "script: say and on", "--continue")
    assert result["result"] == "and on"
    assert compactions(proxy)
