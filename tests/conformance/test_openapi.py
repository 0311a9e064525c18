"""The server does what its OpenAPI description says: by hand, and by schemathesis from it."""

import base64
import collections
import json
import os
import pathlib
import re
import subprocess

import harness
import pytest

DOCUMENT = json.loads((harness.ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
OPERATIONS = [(method.upper(), path, operation) for path, methods in DOCUMENT["paths"].items()
              for method, operation in methods.items()]


def content_of(operation):
    return operation["requestBody"]["content"]["application/json"]


EXAMPLES = [pytest.param(path, example["value"], id=f"{operation['operationId']}-{name}")
            for _, path, operation in OPERATIONS if "requestBody" in operation
            for name, example in content_of(operation).get("examples", {}).items()]
# It ends the server, which a test of its own proves (test_serve_cli.py).
STOP = "/v1/pensieve/stop"


@pytest.fixture(scope="module")
def schemathesis():
    folder = os.environ.get("PENSIEVE_TEST_SCHEMATHESIS")
    assert folder, "run these tests as ./dev conformance or ./dev test e2e"
    return pathlib.Path(folder) / "bin" / "schemathesis"


def test_the_description_is_served(steady):
    response = steady.http.get("/openapi.json")
    assert response.status_code == 200
    assert response.json() == DOCUMENT


def test_every_reference_in_it_leads_somewhere():
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT))):
        place = DOCUMENT
        for step in reference.split("/"):
            assert step in place, reference
            place = place[step]


@pytest.mark.parametrize("path, body", EXAMPLES)
def test_its_examples_are_answered(steady, path, body):
    response = steady.http.post(path, json=body)
    assert response.status_code == 200, response.text


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A server that asks for a key."""
    folder = tmp_path_factory.mktemp("locked")
    server = harness.Server(folder / "home", ["--model", harness.write_script_model(folder)],
                            env={"PENSIEVE_SERVER_API_KEY": "sesame"})
    yield server
    server.stop()


@pytest.mark.parametrize("method, path, operation", OPERATIONS,
                         ids=[f"{method} {path}" for method, path, _ in OPERATIONS])
def test_a_key_is_asked_for_where_it_says_so(locked, method, path, operation):
    response = locked.http.request(method, path.replace("{", "x").replace("}", "x"))
    if "401" in operation["responses"]:
        assert response.status_code == 401
        assert response.headers["x-should-retry"] == "false"
    else:
        assert response.status_code == 200


# What a request may be refused for although the description allows it: rules across fields, which
# JSON Schema cannot say, and what this server's model cannot do. Each is the message itself: a
# wider pattern would let a real mistake through.
RULES_ACROSS_FIELDS = re.compile("|".join((
    "messages: at least one user or assistant message must have content",
    r"messages\.\d+\.content\.\d+: this model cannot read images",
    "tools: Tool names must be unique",
    r"(tools\.\d+|tool\.definition)\.name: String should have at most 128 bytes",
    "tool_choice: it needs tools, and the request has none",
    "tool_choice.name: Tool '.*' not found in provided tools",
    r"stop_sequences\.\d+: String should have at most 1024 bytes",
    "stop: String should have at most 1024 bytes",
    "messages: the last one cannot be the assistant's where output_config.format says",
    r"requests\.\d+\.custom_id: \".*\" is there twice",
    "after_id and before_id cannot be used together",
    # It counts only where max_completion_tokens is missing.
    "POST /v1/chat/completions: max_tokens: Input should be ",
    r"batch \S+ is still being processed",
    r"model \S+ gives no embeddings")), re.DOTALL)
# Ids that nobody has, and models that are not there.
MAY_BE_ABSENT = 404
# Operations of which more than the examples must be accepted, and at least this share.
TALKS = ("createMessage", "countTokens", "createChatCompletion")
SHARE_LEAST = 0.1


def run_schemathesis(schemathesis, server, folder, examples, seconds):
    """Its output, and the report of its cases; bounded by `seconds`. Instead of its
    positive_data_acceptance, which knows no RULES_ACROSS_FIELDS, positive_answers() stands."""
    report = folder / "cases.ndjson"
    ended = subprocess.run(
        [str(schemathesis), "run", f"{server.url}/openapi.json", "--no-color", "--seed", "1",
         "--max-examples", str(examples), "--max-time", str(seconds), "--exclude-path", STOP,
         "--exclude-checks", "positive_data_acceptance", "--request-timeout", "30",
         "--report", "ndjson", "--report-ndjson-path", str(report)],
        cwd=folder, env=harness.clean_environment(folder), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=seconds + 60, check=False)
    return ended, report


def positive_answers(report):
    """Operation, status and body of each answer to a request that the description allows."""
    with report.open(encoding="utf-8") as lines:
        for line in lines:
            recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
            for key, case in recorder.get("cases", {}).items():
                answer = recorder["interactions"].get(key, {}).get("response")
                generation = (case["value"].get("meta") or {}).get("generation", {})
                if answer is None or generation.get("mode") != "positive":
                    continue
                body = base64.b64decode((answer["content"] or {}).get("$base64", ""))
                yield recorder["label"], answer["status_code"], body.decode()


def refusal_of(body):
    return json.loads(body)["error"]["message"]


@pytest.mark.parametrize("examples, seconds", [
    (10, 30), pytest.param(400, 120, marks=[pytest.mark.slow, pytest.mark.timeout(240)])])
def test_schemathesis_finds_nothing(schemathesis, serve_script, tmp_path, measured, examples,
                                    seconds):
    server = serve_script("--context", "16384", model={"context_tokens": 16384})
    ended, report = run_schemathesis(schemathesis, server, tmp_path, examples, seconds)
    assert ended.returncode == 0, ended.stdout[-6000:]
    cases = int(re.search(r"(\d+) generated", ended.stdout).group(1))
    assert cases > 200
    # Its time may not end before it has come to each of them.
    tested = int(re.search(r"Tested: +(\d+)", ended.stdout).group(1))
    wanted = [path for method, path, _ in OPERATIONS if method != "HEAD" and path != STOP]
    assert tested == len(wanted)
    assert server.http.get("/health").json()["status"] == "healthy"
    check_acceptance(list(positive_answers(report)), measured, cases)


def check_acceptance(answers, measured, cases):
    """What the description allows is accepted, but for rules that it cannot say; and often enough
    that what lies behind the parser was reached."""
    accepted = collections.Counter()
    asked = collections.Counter()
    for operation, status, body in answers:
        asked[operation] += 1
        accepted[operation] += status == 200
        if status not in (200, MAY_BE_ABSENT):
            assert status == 400, f"{operation}: {status} {body}"
            refusal = f"{operation}: {refusal_of(body)}"
            assert RULES_ACROSS_FIELDS.search(refusal), refusal
    talks = {f"{method} {path}": len(content_of(operation)["examples"])
             for method, path, operation in OPERATIONS if operation["operationId"] in TALKS}
    assert len(talks) == len(TALKS)
    measured(f"schemathesis: {cases} cases; accepted of those that the description allows: " +
             ", ".join(f"{operation} {accepted[operation]} of {asked[operation]}"
                       for operation in talks))
    for operation, examples in talks.items():
        assert accepted[operation] > examples, operation
        assert accepted[operation] >= SHARE_LEAST * asked[operation], operation
