"""Speaks to the SDK drivers: one process per SDK, one JSON object a line each way."""

import json
import os
import pathlib
import select
import subprocess
import time

import harness

HERE = pathlib.Path(__file__).resolve().parent
ANSWER_SECONDS = 90  # The longest single call of a test, a small model's answer on a busy machine.


class SdkError(Exception):
    """What the SDK raised, as a program that catches it sees it."""

    def __init__(self, seen, seconds):
        super().__init__(f"{seen['class']}: {seen['message']}")
        self.name = seen["class"]
        self.message = seen["message"]
        self.status = seen.get("status")
        self.type = seen.get("type")
        self.request_id = seen.get("request_id")
        self.seconds = seconds


class Sdk:
    """One SDK in one version. Calls take turns; `ok` raises SdkError where the SDK raised.

    `language` is "python" or "typescript", `is_new` false for the older version.
    """

    def __init__(self, name, language, is_new, command, home):
        self.name = name
        self.language = language
        self.is_new = is_new
        for folder in ("cache", "config", "state", "run"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        self._command = command
        self._home = home
        self._errors = home / "stderr"
        self._process = None

    def _start(self):
        with open(self._errors, "wb") as errors:
            self._process = subprocess.Popen(
                self._command, cwd=self._home, env=harness.clean_environment(self._home),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                preexec_fn=harness.die_with_the_tests)
        self._unread = b""

    def ok(self, url, op, request, client=None, **more):
        """The result of `op` (sdk_driver.py) at the server `url`; `client` goes to its maker."""
        return self.timed(url, op, request, client, **more)[0]

    def timed(self, url, op, request, client=None, **more):
        """The same, and how many seconds it took."""
        command = {"op": op, "request": request, "more": more, "client": {
            "base_url": url, "api_key": "not-a-real-key", "max_retries": 0, **(client or {})}}
        if self._process is None:
            self._start()
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._line())
        if "error" in answer:
            raise SdkError(answer["error"], answer["seconds"])
        return answer["ok"], answer["seconds"]

    def _line(self):
        end = time.monotonic() + ANSWER_SECONDS
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._process.stdout], [], [],
                                        max(0, end - time.monotonic()))
            part = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            if not part:
                self.close()  # The next call starts another one: one failure is enough.
                raise AssertionError(f"{self.name} gave no answer:\n{self._errors.read_text()}")
            self._unread += part
        line, self._unread = self._unread.split(b"\n", 1)
        return line

    def close(self):
        process, self._process = self._process, None
        if process is None:
            return
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def python_sdk(venv, is_new, home):
    name = "python-new" if is_new else "python-old"
    command = [f"{venv}/bin/python", str(HERE / "sdk_driver.py")]
    return Sdk(name, "python", is_new, command, home)


def typescript_sdk(folder, is_new, home):
    name = "typescript-new" if is_new else "typescript-old"
    command = ["node", str(HERE / "sdk_driver.mjs"), str(folder)]
    return Sdk(name, "typescript", is_new, command, home)
