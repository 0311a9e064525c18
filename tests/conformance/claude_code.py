"""Runs real Claude Code through scripts/claude-local, in two versions, in an empty project."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess

import harness

LAUNCHER = harness.ROOT / "scripts" / "claude-local"
TOOLS = "Read,Edit,Write,Bash,Task,Agent,WebSearch"


def tokens_shown(out, category):
    """What a row of the table of /context says: "992", "1.2k"; None where there is no such row."""
    row = re.search(rf"^\| {category} \| (\S+) \|", out, re.M)
    return row and row.group(1)


def rounded(tokens):
    """A number of tokens as /context writes it."""
    return str(tokens) if tokens < 1000 else f"{tokens / 1000:.1f}".removesuffix(".0") + "k"


def system_prompt_tokens(counted):
    """What the server said of all parts of the system prompt (fault_proxy.Counted).

    Each part is counted alone, as a user's message; what is counted besides, tools and the like,
    comes with a message "foo".
    """
    return sum(json.loads(count.answer)["input_tokens"] for count in counted
               if count.body["messages"] != [{"role": "user", "content": "foo"}])


@dataclasses.dataclass
class Claude:
    """One version; `home` has its settings and conversations, `project` is where it works."""

    name: str
    clients: pathlib.Path
    home: pathlib.Path

    @property
    def is_new(self):
        return self.name == "claude-new"

    @property
    def project(self):
        folder = self.home / "project"
        folder.mkdir(exist_ok=True)
        return folder

    def start(self, port, *arguments, **env):
        """Starts it; the process leads a group of its own, as in a shell."""
        environment = harness.clean_environment(self.home, PENSIEVE_PORT=str(port), **env)
        environment["PATH"] = os.pathsep.join(
            [f"{self.clients}/node_modules/.bin", environment["PATH"]])
        return subprocess.Popen(
            [str(LAUNCHER), *arguments], cwd=self.project, env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=harness.die_with_the_tests)

    def run(self, port, *arguments, seconds=90, **env):
        """Runs it to its end; ends the whole group where that takes too long."""
        process = self.start(port, *arguments, **env)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"not within {seconds} s:\n{out}\n{err}") from None
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def say(self, port, prompt, *arguments, seconds=90, **env):
        """What it prints for a prompt that must succeed."""
        ended = self.run(port, "--print", *arguments, prompt, seconds=seconds, **env)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def do(self, port, prompt, *arguments, seconds=90, **env):
        """The result object of a prompt during which it may use its tools."""
        out = self.say(port, prompt, "--output-format", "json", "--allowedTools", TOOLS,
                       "--permission-mode", "acceptEdits", *arguments, seconds=seconds, **env)
        result = json.loads(out)
        if isinstance(result, list):  # Every message, in some versions.
            result = result[-1]
        assert result["type"] == "result", out
        return result
