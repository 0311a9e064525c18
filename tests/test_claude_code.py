"""Real Claude Code through scripts/claude-local, with nothing but loopback to talk to."""

import json
import re
import string
import subprocess

import pytest
from harness import CALM, GEMMA, ROOT, clean_environment, write_script_model

LAUNCHER = ROOT / "scripts" / "claude-local"
# Small models ramble for thousands of tokens. A stop sequence is an end like any other to Claude
# Code, and these end an answer after its first word.
WORD_ENDS = [letter + space for letter in string.ascii_lowercase for space in " \n"]
ONE_WORD = {"CLAUDE_CODE_EXTRA_BODY": json.dumps({
    "stop_sequences": [".", "!", "?", ",", ":", *WORD_ENDS], "temperature": 0})}


def claude(server, clients, home, *arguments, seconds, **env):
    """Runs claude-local to its end, in an empty project."""
    project = home / "project"
    project.mkdir(exist_ok=True)
    environment = clean_environment(home, PENSIEVE_PORT=str(server.port), **env)
    environment["PATH"] = f"{clients}/node_modules/.bin:{environment['PATH']}"
    return subprocess.run([str(LAUNCHER), *arguments], cwd=project, env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=seconds, check=False)


@pytest.mark.timeout(300)
def test_a_small_prompt_is_answered_by_smollm2(smollm2, clients, tmp_path):
    ended = claude(smollm2, clients, tmp_path, "--print", "--bare", "--max-turns", "1",
                   "Reply with one word: hello", seconds=280, **ONE_WORD)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.strip()


def test_an_answer_arrives_word_for_word(serve, clients, tmp_path):
    server = serve("--model", write_script_model(tmp_path, context_tokens=65536))
    ended = claude(server, clients, tmp_path, "--print", "--bare",
                   "script: say exactly these words", seconds=60)
    assert (ended.returncode, ended.stdout) == (0, "exactly these words\n"), ended.stderr


def last_answer(server):
    """Prompt tokens, those from the cache, and seconds for the prompt, of the last answer."""
    lines = re.findall(r" in (\d+) tokens \((\d+) from cache\).* prompt ([\d.]+) s", server.log())
    return int(lines[-1][0]), int(lines[-1][1]), float(lines[-1][2])


@pytest.mark.timeout(600)
def test_the_full_prompt_is_answered_by_gemma_and_the_next_turn_re_uses_it(
        serve, clients, tmp_path, measured):
    server = serve("--model", GEMMA, "--context", "32768", *CALM)
    figures = []
    for arguments in (["Say hello."], ["--continue", "Say goodbye."]):
        ended = claude(server, clients, tmp_path, "--print", *arguments, seconds=280,
                       **ONE_WORD)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert ended.stdout.strip()
        figures.append(last_answer(server))
    (first, _, first_seconds), (second, cached, second_seconds) = figures
    measured(f"Claude Code's full prompt on Gemma: {first} tokens in {first_seconds} s; the next "
             f"turn {second} tokens, {cached} of them from the cache, in {second_seconds} s")
    # Some 4,100 without the tools' descriptions, 11,400 with them.
    assert first > 3500
    assert cached > 0.9 * first


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
