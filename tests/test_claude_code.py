"""Real Claude Code through scripts/claude-local, with nothing but loopback to talk to."""

import subprocess

import pytest
from harness import GEMMA, ROOT, clean_environment, write_script_model

LAUNCHER = ROOT / "scripts" / "claude-local"


def claude(server, clients, home, *arguments, seconds, **env):
    """Runs claude-local to its end, in an empty project."""
    project = home / "project"
    project.mkdir(exist_ok=True)
    environment = clean_environment(home, PENSIEVE_PORT=str(server.port), **env)
    environment["PATH"] = f"{clients}/node_modules/.bin:{environment['PATH']}"
    return subprocess.run([str(LAUNCHER), *arguments], cwd=project, env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=seconds, check=False)


def test_a_small_prompt_is_answered_by_smollm2(smollm2, clients, tmp_path):
    ended = claude(smollm2, clients, tmp_path, "--print", "--bare", "--max-turns", "1",
                   "Reply with one word: hello", seconds=110)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.strip()


def test_an_answer_arrives_word_for_word(serve, clients, tmp_path):
    server = serve("--model", write_script_model(tmp_path, context_tokens=65536))
    ended = claude(server, clients, tmp_path, "--print", "--bare",
                   "script: say exactly these words", seconds=60)
    assert (ended.returncode, ended.stdout) == (0, "exactly these words\n"), ended.stderr


@pytest.mark.timeout(400)
def test_the_full_prompt_is_answered_by_gemma_and_re_used_by_the_next_session(
        serve, clients, tmp_path, measured):
    server = serve("--model", GEMMA, "--context", "32768")
    for prompt in ("Say hello.", "Say goodbye."):
        ended = claude(server, clients, tmp_path, "--print", prompt, seconds=180)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert ended.stdout.strip()


def test_a_server_that_is_down_is_said_before_claude_starts(scripted, clients, tmp_path):
    class Down:
        port = 9  # Discard: nobody listens there.

    ended = claude(Down, clients, tmp_path, "--print", "hi", seconds=30)
    assert ended.returncode != 0
    assert "127.0.0.1:9" in ended.stderr


def test_the_exit_code_of_claude_is_passed_through(scripted, clients, tmp_path):
    ended = claude(scripted, clients, tmp_path, "--no-such-flag", seconds=30)
    assert ended.returncode == 1
    assert "no-such-flag" in ended.stderr
