"""Prefixes survive: a conversation goes on where it was after a restart, a crash, a bad disk."""

import contextlib
import os
import re
import signal
import stat
import subprocess

import pytest
from harness import CALM, SMOLLM2, SMOLLM2_ID, ask, floors, run, wait_until

MIB = 1 << 20
MUCH = 400  # Tokens; the story is longer, and a question is much shorter.
# A machine with little to spare is not what is tested here.
EASY = floors(0.4, 0.3, 0.2, 0.1)
STORY = " ".join(f"On day {day} the keeper wrote down {day * 7} ships and {day * 3} storms."
                 for day in range(1, 26))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "prefixes"


@pytest.fixture
def start(serve, folder):
    """Starts a server on SmolLM2 whose prefixes lie in `folder`."""

    def make(*arguments, **env):
        return serve("--model", SMOLLM2, "--context", "4096", *CALM, *arguments,
                     env={**EASY, "PENSIEVE_CACHE_DIRECTORY": str(folder), **env})

    return make


def turn(server, messages, question):
    """One more turn of a conversation, in place; returns its usage."""
    messages.append({"role": "user", "content": question})
    response = server.http.post("/v1/messages", json={
        "model": SMOLLM2_ID, "max_tokens": 12, "temperature": 0, "messages": messages})
    assert response.status_code == 200, response.text
    text = "".join(block["text"] for block in response.json()["content"])
    messages.append({"role": "assistant", "content": text})
    return response.json()["usage"]


def tokens_of(usage):
    return usage["input_tokens"] + usage["cache_read_input_tokens"]


def files(folder):
    return sorted(folder.glob("*.prefix1"))


def prefixes(server):
    return server.http.get("/v1/pensieve/ps").json()["models"][0]["prefixes"]


def test_a_conversation_survives_a_restart_of_the_server(start, folder):
    messages = []
    server = start()
    first = turn(server, messages, STORY)
    assert first["cache_read_input_tokens"] == 0
    assert tokens_of(first) > MUCH
    server.stop()
    assert len(files(folder)) == 1
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(files(folder)[0].stat().st_mode) == 0o600

    server = start()
    second = turn(server, messages, "How many ships on day 3?")
    assert second["cache_read_input_tokens"] >= 0.9 * tokens_of(first)
    assert prefixes(server)["hits"] == 1


def test_a_conversation_survives_a_crash_of_the_worker(start):
    messages = []
    server = start()
    first = turn(server, messages, STORY)
    # It is written once it has rested for ten seconds.
    wait_until(lambda: prefixes(server)["stored"] == 1, 40, "the conversation on disk")
    os.kill(server.worker(), signal.SIGKILL)
    second = turn(server, messages, "How many ships on day 3?")
    assert second["cache_read_input_tokens"] >= 0.9 * tokens_of(first)


def test_the_answer_after_a_restart_is_the_answer_without_one(start):
    question = "Which day had 21 ships? Answer briefly."
    messages = []
    server = start()
    turn(server, messages, STORY)
    before = list(messages)
    turn(server, messages, question)
    there = messages[-1]["content"]
    server.stop()
    server = start()
    usage = turn(server, before, question)
    assert usage["cache_read_input_tokens"] > MUCH
    assert before[-1]["content"] == there


@pytest.mark.parametrize("where", [0, 40, 2000, -1])
def test_a_damaged_file_is_a_miss_and_is_removed(start, folder, where):
    messages = []
    server = start()
    turn(server, messages, STORY)
    server.stop()
    path, = files(folder)
    text = bytearray(path.read_bytes())
    text[where] ^= 0x10
    path.write_bytes(text)

    server = start()
    usage = turn(server, messages, "How many ships on day 3?")
    assert usage["cache_read_input_tokens"] == 0
    assert not path.exists()
    assert prefixes(server)["corrupt"] == 1


def test_files_of_another_model_are_left_alone(start, folder):
    folder.mkdir(mode=0o700)
    foreign = folder / ("0" * 32 + "-" + "1" * 32 + ".prefix1")
    other_version = folder / ("0" * 32 + "-" + "1" * 32 + ".prefix2")
    mine = folder / "notes.txt"
    for path in (foreign, other_version, mine):
        path.write_text("whatever")
    server = start()
    messages = []
    turn(server, messages, STORY)
    server.stop()
    for path in (foreign, other_version, mine):
        assert path.read_text() == "whatever"
    assert len(files(folder)) == 2


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of its own that is soon full."""
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", folder],
                   check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_one_line_in_the_log_and_no_error(start, folder):
    with small_disk(folder, 2 * MIB):
        messages = []
        server = start()
        turn(server, messages, STORY)
        server.wait_for_log("prefixes are not stored for now: .*No space left", 40)
        usage = turn(server, messages, "How many ships on day 3?")
        assert usage["cache_read_input_tokens"] > MUCH, "the KV cache itself still has it"
        assert files(folder) == []
        server.stop()
        assert len(re.findall("prefixes are not stored for now", server.log())) == 1


def test_a_folder_that_others_may_write_to_is_not_used(start, folder):
    folder.mkdir()
    folder.chmod(0o777)
    server = start()
    server.wait_for_log("prefixes are not stored for now: .*others may write")
    messages = []
    turn(server, messages, STORY)
    server.stop()
    assert files(folder) == []


def test_the_disk_is_left_alone_where_the_user_says_so(start, folder):
    server = start(PENSIEVE_CACHE_DISK_MAX_GB="0")
    turn(server, [], STORY)
    server.stop()
    assert not folder.exists()


def test_two_servers_share_one_folder(start, folder):
    first, second = start(), start()
    one, two = [], []
    turn(first, one, STORY)
    turn(second, two, "Something else altogether. " + STORY)
    first.stop()
    second.stop()
    assert len(files(folder)) == 2
    third = start()
    for messages in (one, two):
        assert turn(third, messages, "And then?")["cache_read_input_tokens"] > MUCH


def test_clear_cache_forgets_memory_and_on_demand_the_disk(start, folder, tmp_path):
    messages = []
    server = start()
    turn(server, messages, STORY)
    wait_until(lambda: prefixes(server)["stored"] == 1, 40, "the conversation on disk")
    host = f"127.0.0.1:{server.port}"
    env = {"PENSIEVE_PORT": str(server.port)}
    cleared = run(tmp_path, "clear-cache", env=env)
    assert cleared.returncode == 0, cleared.stderr + host
    assert len(files(folder)) == 1
    usage = turn(server, messages, "How many ships on day 3?")
    assert usage["cache_read_input_tokens"] > MUCH, "from the disk"
    cleared = run(tmp_path, "clear-cache", "--stored", env=env)
    assert cleared.returncode == 0, cleared.stderr
    wait_until(lambda: not files(folder), 10, "an empty folder")
    usage = turn(server, messages, "And on day 4?")
    assert usage["cache_read_input_tokens"] == 0


def test_a_parked_conversation_comes_back_from_memory(start):
    """Five conversations on a server with room for two at once."""
    server = start("--parallel", "2")
    talks = [[] for _ in range(5)]
    for number, messages in enumerate(talks):
        turn(server, messages, f"Conversation {number}. {STORY}")
    wait_until(lambda: prefixes(server)["parked"] > 0, 10, "parked conversations")
    for messages in talks:
        assert turn(server, messages, "How many ships on day 3?")["cache_read_input_tokens"] > MUCH
    assert ask(server, "hello", model=SMOLLM2_ID).status_code == 200
