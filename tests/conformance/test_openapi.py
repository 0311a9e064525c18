"""The server does what its OpenAPI description says: by hand, and by schemathesis from it."""

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
EXAMPLES = [pytest.param(path, example["value"], id=f"{operation['operationId']}-{name}")
            for _, path, operation in OPERATIONS if "requestBody" in operation
            for name, example in operation["requestBody"]["content"]["application/json"].get(
                "examples", {}).items()]
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


def run_schemathesis(schemathesis, server, folder, examples, seconds):
    """Its output; bounded by `seconds`. positive_data_acceptance is left out: rules across fields
    (a message that has content, one of two page marks) are more than JSON Schema can say, and
    test_its_examples_are_answered stands for it."""
    return subprocess.run(
        [str(schemathesis), "run", f"{server.url}/openapi.json", "--no-color", "--seed", "1",
         "--max-examples", str(examples), "--max-time", str(seconds), "--exclude-path", STOP,
         "--exclude-checks", "positive_data_acceptance", "--request-timeout", "30"],
        cwd=folder, env=harness.clean_environment(folder), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=seconds + 60, check=False)


@pytest.mark.parametrize("examples, seconds", [
    (10, 30), pytest.param(400, 120, marks=[pytest.mark.slow, pytest.mark.timeout(240)])])
def test_schemathesis_finds_nothing(schemathesis, serve_script, tmp_path, measured, examples,
                                    seconds):
    server = serve_script("--context", "16384", model={"context_tokens": 16384})
    ended = run_schemathesis(schemathesis, server, tmp_path, examples, seconds)
    assert ended.returncode == 0, ended.stdout[-6000:]
    cases = int(re.search(r"(\d+) generated", ended.stdout).group(1))
    measured(f"schemathesis: {cases} cases")
    assert cases > 200
    # Its time may not end before it has come to each of them.
    tested = int(re.search(r"Tested: +(\d+)", ended.stdout).group(1))
    wanted = [path for method, path, _ in OPERATIONS if method != "HEAD" and path != STOP]
    assert tested == len(wanted)
    assert server.http.get("/health").json()["status"] == "healthy"
