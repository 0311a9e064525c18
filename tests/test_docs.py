"""Every example in the documents that is marked with `<!-- test -->` runs, or compiles.

The address 127.0.0.1:7777 in an example is replaced by that of the server under test.
"""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from harness import BUILD, ROOT, clean_environment

BLOCK = re.compile(r"<!-- test -->\s*\n```(\w+)\n(.*?)\n```", re.S)
DOCUMENTS = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))


def examples():
    for document in DOCUMENTS:
        if not document.exists():
            continue
        text = document.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text[:match.start()].count("\n") + 1
            yield pytest.param(match.group(1), match.group(2),
                               id=f"{document.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize("language,code", list(examples()))
def test_an_example_in_the_documents_works(language, code, smollm2, tmp_path):
    environment = clean_environment(tmp_path, PENSIEVE_PORT=str(smollm2.port))
    python = str(pathlib.Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([str(BUILD), python, environment["PATH"]])
    code = code.replace("127.0.0.1:7777", f"127.0.0.1:{smollm2.port}")
    commands = {
        "bash": ["bash", "-euo", "pipefail", "-c", code],
        "python": [sys.executable, "-c", code],
        "cpp": ["g++", "-std=c++2b", "-fsyntax-only", f"-I{ROOT / 'src'}", "-x", "c++", "-"],
    }
    assert language in commands, f"no way to try {language}"
    ended = subprocess.run(commands[language], input=code if language == "cpp" else "",
                           env=environment, cwd=tmp_path, capture_output=True, text=True,
                           timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_readme_has_examples_to_try():
    assert sum(1 for _ in examples()) >= 3
