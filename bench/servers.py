"""The programs that are measured: started on free ports, ended by their process ids."""

import contextlib
import http.client
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

from machine import family

ROOT = pathlib.Path(__file__).resolve().parents[1]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
MODEL = CACHE / "pensieve" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
START_SECONDS, STOP_SECONDS = 90, 20
LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")

CONTEXT_TOKENS = 8192
STREAMS_MAX = 4
THREADS = 2


def free_port():
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    """A child process with its output in a file."""

    def __init__(self, name, command, folder, **options):
        self.name = name
        self.output_path = folder / f"{name}.log"
        self.command = [str(word) for word in command]
        with open(self.output_path, "wb") as log:
            self.process = subprocess.Popen(self.command, stderr=log, **{
                "stdin": subprocess.DEVNULL, "stdout": log, **options})

    @property
    def pids(self):
        return family(self.process.pid)

    def output(self):
        return self.output_path.read_text(errors="replace")

    def wait_for(self, claim, what):
        """Polls until claim() gives something; the program must live on meanwhile."""
        end = time.monotonic() + START_SECONDS
        while not (value := claim()):
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended with {self.process.returncode}:\n"
                                 f"{self.output()[-2000:]}")
            if time.monotonic() > end:
                raise SystemExit(f"{self.name}: not within {START_SECONDS} s: {what}")
            time.sleep(0.05)
        return value

    @staticmethod
    def answers_health(port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False

    def forget(self):
        """Drops kept conversations, where a program keeps them in the way of others."""

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Pensieve(Program):
    def __init__(self, folder, build, arguments, env=None):
        command = [build / "pensieve", "serve", "--port", "0", *arguments]
        super().__init__("pensieve", command, folder, env={**os.environ, **(env or {})})
        match = self.wait_for(lambda: LISTENING.search(self.output()), "'listening on'")
        self.port = int(match.group(1))

    def forget(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/pensieve/clear-cache")
            if connection.getresponse().status != 200:
                raise SystemExit(f"pensieve does not clear its cache:\n{self.output()[-2000:]}")


class LlamaServer(Program):
    def __init__(self, folder, program, threads=THREADS):
        self.port = free_port()
        # With a unified KV cache, as ours is, each stream may use the whole window, and the four
        # share its cells; without, `-c` would be cut into four.
        command = [program, "-m", MODEL, "--host", "127.0.0.1", "--port", self.port,
                   "-c", CONTEXT_TOKENS, "-np", STREAMS_MAX, "-kvu", "-t", threads, "--no-webui"]
        super().__init__("llama-server", command, folder)
        self.wait_for(lambda: self.answers_health(self.port), "/health says ok")


class EngineAlone(Program):
    """engine_bench: the engine without server and worker."""

    def __init__(self, folder, build):
        super().__init__("engine", [build / "engine_bench", MODEL, THREADS], folder,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tokens_per_second(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"engine_bench ended:\n{self.output()}")
        return float(answer)

    def stop(self):
        self.process.stdin.close()  # The end of its commands.
        super().stop()


def start_pensieve(folder, build, threads=THREADS):
    return Pensieve(folder, build,
                    ["--model", MODEL, "--context", CONTEXT_TOKENS, "--parallel", STREAMS_MAX],
                    {"PENSIEVE_THREADS": str(threads)})


def llama_server_program():
    """The path of llama-server, built of the same llama.cpp source first where it is missing."""
    setup = subprocess.run([ROOT / "scripts" / "setup" / "llama.sh", "server"],
                           stdout=subprocess.PIPE, text=True, check=True)
    return pathlib.Path(setup.stdout.strip()) / "build/bin/llama-server"
