"""Fails on what the house rules forbid, and on files, functions and lines that are too long.

A line that has a good reason says so: `// pensieve-allow: WORD` (or `# pensieve-allow: WORD`) on it
or on the line before, where WORD is the rule's name.
"""

import re
import sys

from tables import ROOT

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
LINE_COLUMNS_MAX = 100

CPP = {".h", ".cc"}
SCRIPT = {".py", ".sh", ".mjs", ""}
BUILD = {".txt", ".cmake"}
ALL = CPP | SCRIPT | BUILD | {".md", ".toml", ".json", ".service", ".plist", ".yml", ".yaml"}


def word(text: str) -> str:
    """Joins a banned word from halves, so that this file does not ban itself."""
    return text.replace("~", "")


# name, which files, pattern, files where it belongs, why
RULES = [
    ("clock", CPP, r"(steady|system|high_resolution)_clock::now", {"src/base/clock.cc"},
     "time comes from base/clock.h"),
    ("sleep", CPP, r"\b(sleep_for|sleep_until|usleep|nanosleep)\b", set(),
     "wait for the event, not for time to pass"),
    ("timer", CPP, r"\basio::(steady|system|high_resolution)_timer\b",
     {"src/cli/http_client.cc", "src/gateway/connection_test.cc"},
     "timers are base/timer.h's, so that a simulation can move them"),
    ("unknown-as-zero", CPP, r"value_or\(0[uUlLzZ]*\)", set(), "unknown is not zero"),
    ("catch-all", CPP, r"catch \(\.\.\.\)", set(), "it swallows faults of ours"),
    # g++ 12 destroys such temporaries twice: free() of a wild pointer, or worse.
    ("co-await-conditional", CPP, r"co_await\b.*\(.* \? .* : ", set(), "name the value first"),
    ("co-await-lambda", CPP, r"co_await\b[^;]*[(,] *\[[^\]]+\] *[({]", set(),
     "name the capturing lambda first"),
    ("skip", CPP, word("GTEST~_SKIP|DISABLED~_"), set(), "a test runs or does not exist"),
    ("skip", {".py"}, word(r"pytest\.~(mark\.)?(skip|xfail)|unittest\.~skip"), set(),
     "a test runs or does not exist"),
    ("unfinished", ALL, word(r"\b(TO~DO|FIX~ME|X~XX)\b"), set(), "finish it, or open an issue"),
    ("machine-path", ALL, word(r"(?<![\w.$}~-])/(wo~rk|ro~ot|fa~rm|tmp/w)/"), set(),
     "a path of one machine"),
    ("registry", ALL, word(r"pypi~\.org|pythonhosted~\.org|registry\.npm~js|deb\.debian~\.org"),
     set(), "users have mirrors; the tools know where they are"),
]
CONTROL = re.compile(r"^\s*(if|for|while|switch|else|do|catch|return|co_return)\b")
FUNCTION = re.compile(r"^( {0,2})[^\s#/}].*\)[\w\s&>:<,*-]*\{$")


def without_comment(line: str) -> str:
    """The code of a C++ line: a comment may name what code may not use."""
    return re.sub(r"//.*", "", line)


def allowed(lines, index: int, name: str) -> bool:
    mark = f"pensieve-allow: {name}"
    return mark in lines[index] or (index > 0 and mark in lines[index - 1])


def long_functions(lines):
    """Yields (line number, length) of each function that is too long, in clang-format's layout."""
    for index, line in enumerate(lines):
        match = FUNCTION.match(line)
        if not match or CONTROL.match(line):
            continue
        end = match.group(1) + "}"
        for last in range(index + 1, len(lines)):
            if lines[last].rstrip(";,)") == end:
                if last - index + 1 > FUNCTION_LINES_MAX:
                    yield index + 1, last - index + 1
                break


def check_file(path: str, text: str):
    """Yields what is wrong with one file; `path` is relative to the root."""
    suffix = "." + path.rsplit(".", 1)[1] if "." in path.rsplit("/", 1)[-1] else ""
    lines = text.splitlines()
    for name, suffixes, pattern, homes, why in RULES:
        if suffix not in suffixes or path in homes:
            continue
        for index, line in enumerate(lines):
            code = without_comment(line) if suffixes is CPP else line
            if re.search(pattern, code) and not allowed(lines, index, name):
                yield f"{path}:{index + 1}: {name}: {why}: {line.strip()}"
    if suffix in CPP | SCRIPT:
        if len(lines) > FILE_LINES_MAX:
            yield f"{path}: {len(lines)} lines; {FILE_LINES_MAX} is the most: several ideas?"
        for index, line in enumerate(lines):
            if len(line) > LINE_COLUMNS_MAX and not allowed(lines, index, "long-line"):
                yield f"{path}:{index + 1}: {len(line)} columns; {LINE_COLUMNS_MAX} is the most"
    if suffix in CPP:
        for number, length in long_functions(lines):
            yield f"{path}:{number}: a function of {length} lines; {FUNCTION_LINES_MAX} is the most"
    if suffix == ".h" and not any(line == "#pragma once" for line in lines):
        yield f"{path}: no #pragma once"


def sources():
    """Every file of ours that is text; built and fetched things are not ours."""
    tops = ["src", "bench", "tests", "scripts", "config", "cmake", "deploy", "docs", "third_party",
            ".ci"]
    files = [path for top in tops for path in sorted((ROOT / top).rglob("*")) if path.is_file()]
    files += [path for path in sorted(ROOT.iterdir()) if path.is_file()]
    for path in files:
        if "__pycache__" in path.parts or path.suffix not in ALL or path.name == "LICENSE":
            continue
        yield path


def problems():
    for path in sources():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        yield from check_file(path.relative_to(ROOT).as_posix(), text)


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found))
    sys.exit(1 if found else 0)
