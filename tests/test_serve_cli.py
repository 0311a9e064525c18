"""`pensieve` as a user runs it: start, stop, exit codes, and each subcommand."""

import json
import re
import signal
import socket
import threading
import time

import harness
import pytest
from harness import ask, streaming, until_text, wait_until, write_script_model

# The exit codes of the table in `pensieve --help`.
USAGE, PORT_IN_USE, MODEL_UNAVAILABLE, UNREACHABLE, REFUSED_FOR_MEMORY = 2, 3, 4, 5, 6
INTERRUPTED = 130


@pytest.fixture
def home(tmp_path):
    return tmp_path


@pytest.fixture
def address(scripted):
    return {"PENSIEVE_PORT": str(scripted.port)}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- starting -------------------------------------------------------------------------------------

def test_the_banner_says_where_what_and_how_much_memory(serve_script):
    banner = serve_script().output()
    assert harness.LISTENING.search(banner)
    assert re.search(r"\btest\b", banner)
    assert re.search(r"\d+\.\d\d ?GB", banner)


def test_a_port_in_use_is_a_clear_line_and_its_own_exit_code(scripted, home):
    model = write_script_model(home)
    ended = harness.run(home, "serve", "--model", model, "--port", scripted.port)
    assert ended.returncode == PORT_IN_USE
    assert str(scripted.port) in ended.stderr
    assert "in use" in ended.stderr


@pytest.mark.parametrize("name", ["no-such-model", "/nothing/here.gguf"])
def test_a_missing_model_is_a_clear_line_and_its_own_exit_code(home, name):
    ended = harness.run(home, "serve", "--model", name, "--port", "0")
    assert ended.returncode == MODEL_UNAVAILABLE
    assert name in ended.stderr


def test_a_broken_model_file_is_named_with_its_line(home):
    model = write_script_model(home, wheels=4)
    ended = harness.run(home, "serve", "--model", model, "--port", "0")
    assert ended.returncode == MODEL_UNAVAILABLE
    assert "test.script:1" in ended.stderr


@pytest.mark.parametrize("text,line", [
    ("prot = 1\n", 1), ("\nport = 'x'\n", 2), ("port = 70000\n", 1), ("port = \n", 1),
    ("[memory]\ncritical_gb = -1\n", 2), ("[memory]\ncritical_gb = 9\n", 2)])
def test_a_bad_settings_file_is_named_with_its_line(home, text, line):
    settings = home / "pensieve.toml"
    settings.write_text(text)
    ended = harness.run(home, "serve", "--config", settings)
    assert ended.returncode == USAGE
    assert f"{settings}:{line}" in ended.stderr


@pytest.mark.parametrize("arguments,env,named", [
    (["--port", "many"], {}, "--port"), (["--nothing"], {}, "--nothing"),
    (["--config", "/nothing/at/all.toml"], {}, "/nothing/at/all.toml"),
    (["--host", "0.0.0.0"], {}, "api_key"),
    ([], {"PENSIEVE_MEMORY_CRITICAL_GB": "much"}, "PENSIEVE_MEMORY_CRITICAL_GB"),
    ([], {"PENSIEVE_PROT": "1"}, "PENSIEVE_PROT")])
def test_a_bad_flag_or_variable_is_named(home, arguments, env, named):
    ended = harness.run(home, "serve", *arguments, env=env)
    assert ended.returncode == USAGE
    assert named in ended.stderr


# --- stopping -------------------------------------------------------------------------------------

def interrupt(server):
    server.process.send_signal(signal.SIGINT)


def test_ctrl_c_lets_running_answers_finish_and_ends_with_0(serve_script):
    server = serve_script()
    with streaming(server, "script: delay 100; repeat 15 x") as all_events:
        until_text(all_events)
        interrupt(server)
        names = [name for name, _ in all_events]
    assert names[-1] == "message_stop"
    assert server.process.wait(10) == 0


def test_ctrl_c_waits_five_seconds_and_no_longer(serve_script):
    server = serve_script()
    with streaming(server, "script: delay 100; endless x") as all_events:
        until_text(all_events)
        started = time.monotonic()
        interrupt(server)
        rest = list(all_events)
        assert 4 < time.monotonic() - started < 8
    assert rest[-1][0] == "error"
    assert server.process.wait(20) == 0


def is_turned_away(http, url):
    """True for a refusal or a closed door; a connection that is left hanging fails."""
    try:
        return http.post(url, json=harness.body("script: say hi"), timeout=3).status_code == 503
    except harness.httpx.ConnectError:
        return True


def test_while_it_drains_the_server_takes_no_new_request(serve_script):
    server = serve_script()
    with streaming(server, "script: delay 100; repeat 20 x") as all_events:
        until_text(all_events)
        assert server.http.get("/health").status_code == 200  # A connection to keep.
        interrupt(server)
        server.wait_for_log("stopping")
        for http in (server.http, harness.httpx):  # The kept connection, and a new one.
            assert is_turned_away(http, f"{server.url}/v1/messages")
        assert list(all_events)[-1][0] == "message_stop"
    assert server.process.wait(10) == 0


def test_a_second_ctrl_c_ends_at_once(serve_script):
    server = serve_script(expect=INTERRUPTED)
    with streaming(server, "script: delay 100; endless x") as all_events:
        until_text(all_events)
        server.workers()
        interrupt(server)
        server.wait_for_log("stopping")
        interrupt(server)
        started = time.monotonic()
        server.process.wait(5)
    assert time.monotonic() - started < 1


def test_an_idle_server_stops_at_once(serve_script):
    server = serve_script()
    started = time.monotonic()
    interrupt(server)
    assert server.process.wait(10) == 0
    assert time.monotonic() - started < 2


def test_workers_die_with_a_killed_server(serve_script):
    server = serve_script(expect=-signal.SIGKILL)
    ask(server, "script: say hi")
    worker = server.worker()
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not harness.is_running(worker), 5, "the worker's end")


# --- the subcommands ------------------------------------------------------------------------------

def test_run_streams_an_answer_to_the_terminal(scripted, home, address):
    ended = harness.run(home, "run", "script: say hello from here", env=address)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "hello from here\n"
    assert "3 tokens" in ended.stderr


def test_run_shows_text_before_the_answer_is_complete(scripted, home, address):
    process = harness.subprocess.Popen(
        [str(harness.PENSIEVE), "run", "script: say first; delay 2000; say second"],
        env=harness.clean_environment(home, **address), stdout=harness.subprocess.PIPE,
        stderr=harness.subprocess.DEVNULL, cwd=home)
    started = time.monotonic()
    assert process.stdout.read(5) == b"first"
    assert time.monotonic() - started < 1.5
    assert process.stdout.read() == b" second\n"
    process.stdout.close()
    assert process.wait(10) == 0


def test_health_says_the_level_and_whether_requests_are_accepted(scripted, home, address):
    ended = harness.run(home, "health", env=address)
    assert ended.returncode == 0, ended.stderr
    assert "accepting requests: yes" in ended.stdout


def test_health_and_run_have_their_own_exit_code_for_too_little_memory(serve_short_of_memory, home):
    server = serve_short_of_memory("Critical")
    address = {"PENSIEVE_PORT": str(server.port)}
    assert harness.run(home, "health", env=address).returncode == REFUSED_FOR_MEMORY
    ended = harness.run(home, "run", "hi", env=address)
    assert ended.returncode == REFUSED_FOR_MEMORY
    assert "memory" in ended.stderr


def test_ps_shows_the_model_its_worker_and_its_memory(scripted, home, address):
    ask(scripted, "script: say hi")
    ended = harness.run(home, "ps", env=address)
    assert ended.returncode == 0, ended.stderr
    row = ended.stdout.splitlines()[1]
    assert re.match(r"test\s+scripted\s+\w+\s+" + str(scripted.worker()), row)


def test_stop_ends_the_server_as_ctrl_c_does(serve_script, home):
    server = serve_script()
    ended = harness.run(home, "stop", env={"PENSIEVE_PORT": str(server.port)})
    assert ended.returncode == 0, ended.stderr
    assert server.process.wait(10) == 0


def cached_tokens(server):
    return server.http.get("/v1/pensieve/ps").json()["models"][0]["kv_tokens_cached"]


def test_clear_cache_says_how_much_came_back(serve_script, home):
    server = serve_script()
    address = {"PENSIEVE_PORT": str(server.port)}
    text = ask(server, "script: grow 64; say " + "big " * 100).json()
    assert text["stop_reason"] == "end_turn"
    cached = wait_until(lambda: cached_tokens(server), 5, "cached tokens")
    ended = harness.run(home, "clear-cache", env=address)
    assert ended.returncode == 0, ended.stderr
    assert f"{cached} cached tokens dropped" in ended.stdout
    wait_until(lambda: cached_tokens(server) == 0, 5, "an empty cache")


@pytest.mark.parametrize("command", [["health"], ["ps"], ["run", "hi"], ["stop"], ["clear-cache"]])
def test_without_a_server_each_client_command_says_so(home, command):
    port = free_port()
    ended = harness.run(home, *command, env={"PENSIEVE_PORT": str(port)})
    assert ended.returncode == UNREACHABLE
    assert f"127.0.0.1:{port}" in ended.stderr


def test_config_shows_each_value_and_where_it_came_from(home):
    settings = home / "pensieve.toml"
    settings.write_text("parallel = 2\ncontext = 512\n")
    ended = harness.run(home, "config", "--config", settings, "--port", "1234",
                        env={"PENSIEVE_CONTEXT": "1024"})
    assert ended.returncode == 0, ended.stderr
    lines = {line.split(" ")[0]: line for line in ended.stdout.splitlines() if " = " in line}
    assert re.match(r"port = 1234\s+# from --port", lines["port"])
    assert re.match(r"context = 1024\s+# from PENSIEVE_CONTEXT", lines["context"])
    assert re.match(rf"parallel = 2\s+# from {re.escape(str(settings))}:1", lines["parallel"])
    assert re.match(r"critical_gb = 1(\.0)?\s+# from default", lines["critical_gb"])


def test_config_never_shows_a_secret(home):
    ended = harness.run(home, "config", env={"PENSIEVE_SERVER_API_KEY": "sesame"})
    assert "sesame" not in ended.stdout + ended.stderr


def test_version_names_the_program_and_its_engines(home):
    ended = harness.run(home, "version")
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^pensieve \d+\.\d+\.\d+$", ended.stdout, re.M)
    assert re.search(r"^engine llama ", ended.stdout, re.M)
    assert re.search(r"^engine scripted ", ended.stdout, re.M)


def test_doctor_examines_the_machine_and_proves_the_guard(home):
    ended = harness.run(home, "doctor", env={"PENSIEVE_PORT": str(free_port())})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = ended.stdout.lower()
    wanted = ("memory", "cgroup", "psi", "engine", "port", "claude", "critical", harness.SMOLLM2)
    missing = [word for word in wanted if word.lower() not in said]
    assert not missing


def test_doctor_says_when_the_worker_program_is_missing(home):
    ended = harness.run(home, "doctor", env={"PENSIEVE_WORKER_PROGRAM": "/nothing"})
    assert ended.returncode != 0
    assert "/nothing" in ended.stdout


def test_help_names_every_subcommand_and_exit_code(home):
    ended = harness.run(home, "--help")
    assert ended.returncode == 0
    for word in ("serve", "run", "health", "ps", "stop", "clear-cache", "config", "doctor",
                 "version"):
        assert re.search(rf"\b{word}\b", ended.stdout), word
    for code in (USAGE, PORT_IN_USE, MODEL_UNAVAILABLE, UNREACHABLE, REFUSED_FOR_MEMORY):
        assert re.search(rf"^\s*{code}\s", ended.stdout, re.M), code


def test_health_as_json_is_what_the_server_says(scripted, home, address):
    ended = harness.run(home, "health", "--json", env=address)
    assert json.loads(ended.stdout)["service"] == "pensieve-anthropic-proxy"


def test_two_servers_run_side_by_side(serve_script):
    first, second = serve_script(), serve_script()
    answers = []
    threads = [threading.Thread(target=lambda s=s, n=n: answers.append(
        harness.answer(s, f"script: repeat 20 {n}"))) for s, n in ((first, "a"), (second, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(text[0] for text in answers) == ["a", "b"]
