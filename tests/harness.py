"""Runs the real programs and speaks to them: what every test file here shares.

A Server is one `pensieve serve` on a free port with a home of its own. It is started, watched and
ended by its own process id, and its end is part of every test: exit code 0 and no worker left.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import time

import httpx

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(os.environ.get("PENSIEVE_TEST_BUILD") or ROOT / "build" / "release")
PENSIEVE = BUILD / "pensieve"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
MODELS = CACHE / "pensieve" / "models"
SMOLLM2 = "SmolLM2-135M-Instruct"  # As --model takes it.
SMOLLM2_ID = "SmolLM2-135M-Instruct.Q4_1"  # As the API calls it.
GEMMA = "gemma-3-270m-q4_k_m"
# For servers on a real model. Two threads that wait for each other at every layer are very slow
# where another program takes a core; one is nearly as fast, whatever else the machine does.
CALM = ("--threads", "1")
START_SECONDS = 60
STOP_SECONDS = 20
LISTENING = re.compile(r"listening on (http://127\.0\.0\.1:(\d+))")


def wait_until(claim, seconds, what):
    """Returns the first true value of claim(); fails with `what` when there was none in time."""
    end = time.monotonic() + seconds
    while True:
        value = claim()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def is_running(pid):
    """True while the process exists and is not a zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in ("Z", "X")


def children(pid):
    """Process ids of the direct children, whatever thread started them."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def resident_bytes(pid):
    """Anonymous and shared memory of a process; file-backed pages belong to the page cache."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    fields = dict(re.findall(r"^(RssAnon|RssShmem):\s+(\d+) kB", status, re.M))
    return sum(int(kib) * 1024 for kib in fields.values())


def open_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def clean_environment(home, **more):
    """What a program gets here: nothing of the caller's but the path, and a home of its own."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8",
            "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_STATE_HOME": str(home / "state"), "XDG_RUNTIME_DIR": str(home / "run"),
            "PENSIEVE_MODELS_DIRECTORY": str(MODELS), **more}


def write_script_model(folder, name="test", **keys):
    """A model file of the scripted engine; returns its path."""
    path = folder / f"{name}.script"
    path.write_text("".join(f"{key} {value}\n" for key, value in keys.items()) or "# defaults\n")
    return path


def worker_program(folder, faulty):
    """A worker program that is the real one, or does `faulty` (shell) while `folder`/faulty is."""
    program = folder / "worker"
    program.write_text(f"#!/bin/bash\n[ ! -e {folder}/faulty ] || {{ {faulty}; }}\n"
                       f'exec {BUILD}/pensieve-worker "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def die_with_the_tests():
    """In a child before exec: a server must not outlive a test run that was killed."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """One running `pensieve serve`; `arguments` go behind it, `env` over the clean environment.

    `before`: words in front of the command, e.g. prlimit's; `group`: the memory group it joins.
    """

    def __init__(self, home, arguments=(), env=None, group=None, program=PENSIEVE, before=()):
        self.home = home
        for folder in ("cache", "config", "state", "run"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        self.stdout = home / "stdout"
        self.stderr = home / "stderr"
        self.seen_workers = set()
        self.ended = False
        command = [*before, str(program), "serve", "--port", "0", *map(str, arguments)]
        if group is not None:
            command = group.command(command)
        with open(self.stdout, "wb") as out, open(self.stderr, "wb") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=home,
                env=clean_environment(home, **(env or {})), preexec_fn=die_with_the_tests)
        try:
            self.url = wait_until(self._listening, START_SECONDS, "the line 'listening on'")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        self.port = int(self.url.rsplit(":", 1)[1])
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    @property
    def pid(self):
        return self.process.pid

    def _listening(self):
        match = LISTENING.search(self.output())
        if not match:
            assert self.process.poll() is None, \
                f"ended with {self.process.returncode} before it listened:\n{self.output()}"
        return match and match.group(1)

    def output(self):
        return self.stdout.read_text(errors="replace") + self.log()

    def log(self):
        return self.stderr.read_text(errors="replace")

    def wait_for_log(self, pattern, seconds=10):
        return wait_until(lambda: re.search(pattern, self.log()), seconds,
                          f"a log line like {pattern!r} in:\n{self.log()}")

    def workers(self):
        """Process ids of the workers that live now."""
        living = []
        for pid in children(self.pid):
            with contextlib.suppress(OSError):
                command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"worker" in command and is_running(pid):
                    living.append(pid)
        self.seen_workers.update(living)
        return living

    def worker(self):
        """The one worker, waited for where it is just being started."""
        found = wait_until(self.workers, 20, "a worker process")
        assert len(found) == 1, f"workers: {found}"
        return found[0]

    def running_requests(self):
        models = self.http.get("/v1/pensieve/ps").json()["models"]
        return sum(model["requests_running"] for model in models)

    def stop(self, expect=0):
        """Ends the server as Ctrl+C's sibling SIGTERM does, and proves that nothing stays."""
        if self.ended:
            return
        self.ended = True
        self.workers()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.http.close()
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not stop within {STOP_SECONDS} s:\n{self.log()}") from None
        finally:
            orphans = [pid for pid in self.seen_workers if is_running(pid)]
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert not orphans, f"workers outlived the server: {orphans}"
        assert code == expect, f"exit code {code}:\n{self.log()}"


def run(home, *arguments, env=None, seconds=60, program=PENSIEVE):
    """Runs a command of `pensieve` to its end, as a user's shell would."""
    return subprocess.run([str(program), *map(str, arguments)], cwd=home, timeout=seconds,
                          env=clean_environment(home, **(env or {})), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)


def body(text, **fields):
    """A Messages request with one user turn."""
    return {"model": "test", "max_tokens": 1000,
            "messages": [{"role": "user", "content": text}], **fields}


def ask(server, text, **fields):
    return server.http.post("/v1/messages", json=body(text, **fields))


def answer(server, text, **fields):
    """The text of an answer that must succeed."""
    response = ask(server, text, **fields)
    assert response.status_code == 200, response.text
    return "".join(block["text"] for block in response.json()["content"])


def events(response):
    """Yields (name, data) of each server-sent event as it arrives."""
    name = None
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


@contextlib.contextmanager
def streaming(server, text, **fields):
    """The events of a streamed answer, while it runs; leaving hangs up."""
    request = body(text, stream=True, **fields)
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http:
        with http.stream("POST", "/v1/messages", json=request) as response:
            assert response.status_code == 200, response.read()
            yield events(response)


def stream(server, text, **fields):
    """All events of a streamed answer."""
    with streaming(server, text, **fields) as all_events:
        return list(all_events)


def streamed_text(all_events):
    return "".join(data["delta"]["text"] for name, data in all_events
                   if name == "content_block_delta")


def until_text(all_events, count=1):
    """Reads events until `count` pieces of text have come; returns them."""
    texts = []
    for name, data in all_events:
        if name == "content_block_delta":
            texts.append(data["delta"]["text"])
            if len(texts) == count:
                return texts
    raise AssertionError(f"the stream ended after {texts}")


def raw(server, request, seconds=20):
    """Sends bytes and returns all that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def error_of(response):
    """The `error` object of a failed request, its envelope checked."""
    assert response.headers["content-type"].startswith("application/json")
    content = response.json()
    assert content["type"] == "error"
    assert content["request_id"] == response.headers["request-id"]
    return content["error"]


def floors(caution, warning, critical, emergency):
    """The environment that sets the four floors of available memory, in GB of 2^30 bytes."""
    return {"PENSIEVE_MEMORY_CAUTION_GB": str(caution), "PENSIEVE_MEMORY_WARNING_GB": str(warning),
            "PENSIEVE_MEMORY_CRITICAL_GB": str(critical),
            "PENSIEVE_MEMORY_EMERGENCY_GB": str(emergency)}
