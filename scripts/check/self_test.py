"""The checks find what they must and leave alone what is right: each line is a small proof."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import bans
import includes
import limits
import tables

TABLE = """
| folder | may include | links |
|---|---|---|
| `base` | C++ and POSIX | `fmt::fmt` |
| `worker` | `base`, `engine.h`, `memory/level.h` | |
"""


def wrong_includes(path: str, line: str):
    table = includes.read_table(TABLE)
    folders = {"base", "worker", "engine", "memory"}
    return list(includes.check_file(path, line, table, folders))


def wrong_links(cmake: str):
    return list(includes.check_links("worker", cmake, includes.read_table(TABLE)))


def banned(path: str, text: str):
    return list(bans.check_file(path, text))


def long_function(lines: int) -> str:
    return "void f() {\n" + "  g();\n" * (lines - 2) + "}\n"


# Stands in for pytest and for ctest: writes the results that it is told, and ends as it is told.
STAND_IN = """#!/bin/bash
for argument in "$@"; do
  case $argument in --junitxml=*) file=${argument#*=} ;; esac
  if [ "$last" = --output-junit ]; then file=$argument; fi
  last=$argument
done
[ -z "$RESULTS" ] || printf '%s' "$RESULTS" >"$file"
exit "$STATUS"
"""
# Stands in for the fuzzers, which say in lines of text what was found.
FUZZ_STAND_IN = """#!/bin/bash
if [ "$1" = build ]; then exit 0; fi
printf '%s\\n' "$RESULTS"
exit "$STATUS"
"""
SUMMING = ("test.sh", "conformance.sh", "common.sh", "junit_count.py")
SETTING_UP = ("build.sh", "setup/packages.sh", "setup/llama.sh", "setup/models.sh")


def summed(script: str, status: int, *cases: str) -> str:
    """The last line of a script of the tests whose test program ends so, with these results."""
    with tempfile.TemporaryDirectory() as folder:
        scripts = pathlib.Path(folder) / "scripts"
        (scripts / "setup").mkdir(parents=True)
        for name in SUMMING:
            shutil.copy(tables.ROOT / "scripts" / name, scripts / name)
        stand_ins = dict.fromkeys(SETTING_UP, "#!/bin/sh\n")
        stand_ins |= {"pytest.sh": STAND_IN, "ctest": STAND_IN, "fuzz.sh": FUZZ_STAND_IN}
        for name, text in stand_ins.items():
            (scripts / name).write_text(text)
            (scripts / name).chmod(0o755)
        results = "\n".join(cases)
        if results.startswith("<"):
            results = f"<testsuite>{results}</testsuite>"
        env = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "STATUS": str(status),
               "RESULTS": results}
        ended = subprocess.run(["bash", *f"{scripts}/{script}".split()], env=env, check=False,
                               stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (ended.returncode == 0) == ended.stdout.endswith(" passed, 0 failed\n"), ended
    return ended.stdout.splitlines()[-1]


GOOD, BAD = "<testcase/>", "<testcase><failure/></testcase>"
SKIPPED, NOT_RUN = "<testcase><skipped/></testcase>", '<testcase status="notrun"/>'
ENDS = [  # What counts the results, how its test program ended, its results, the sum of it.
    ("a good run counts as it is", "test.sh e2e", 0, [GOOD, GOOD], "2 passed, 0 failed"),
    ("a failure is counted once", "test.sh e2e", 1, [GOOD, BAD], "1 passed, 1 failed"),
    ("so is one that ctest found", "test.sh unit", 8, [GOOD, BAD], "1 passed, 1 failed"),
    ("what was skipped or did not run has failed", "test.sh unit", 0, [GOOD, SKIPPED, NOT_RUN],
     "1 passed, 2 failed"),
    ("a run that was interrupted has failed", "test.sh e2e", 2, [GOOD], "1 passed, 1 failed"),
    ("also where a test had failed before", "test.sh e2e", 3, [GOOD, BAD], "1 passed, 2 failed"),
    ("a run that was killed has failed", "test.sh e2e", 137, [GOOD], "1 passed, 1 failed"),
    ("an end that no failure explains is one", "test.sh e2e", 1, [GOOD], "1 passed, 1 failed"),
    ("so is one of ctest", "test.sh unit", 8, [GOOD], "1 passed, 1 failed"),
    ("an end of ctest that is not its tests' is one", "test.sh release", 1, [GOOD, BAD],
     "1 passed, 2 failed"),
    ("no results are a failure", "test.sh e2e", 0, [], "0 passed, 1 failed"),
    ("whatever the end was", "test.sh e2e", 4, [], "0 passed, 1 failed"),
    ("each fuzzer is a test", "test.sh fuzz", 0, ["ok    a", "ok    b"], "2 passed, 0 failed"),
    ("what a fuzzer finds is a failure", "test.sh fuzz", 1, ["ok    a", "FAIL  b"],
     "1 passed, 1 failed"),
    ("a fuzzer that ends before it says so too", "test.sh fuzz", 1, ["ok    a"],
     "1 passed, 1 failed"),
    ("conformance counts a failure once", "conformance.sh", 1, [GOOD, BAD], "1 passed, 1 failed"),
    ("conformance that ends early has failed", "conformance.sh", 2, [GOOD], "1 passed, 1 failed"),
    ("a part of it that ends early has failed", "conformance.sh sdk", 2, [GOOD],
     "1 passed, 1 failed"),
]

CASES = [
    ("a folder in the table may be included",
     not wrong_includes("src/worker/a.cc", '#include "base/bytes.h"')),
    ("a single header may be included",
     not wrong_includes("src/worker/a.cc", '#include "engine/engine.h"')),
    ("its neighbour may not",
     wrong_includes("src/worker/a.cc", '#include "engine/scripted.h"')),
    ("a test may use any folder's fakes",
     not wrong_includes("src/base/a_test.cc", '#include "engine/testing/fake.h"')),
    ("but nothing else of a folder that is not in the table",
     wrong_includes("src/base/a_test.cc", '#include "engine/engine.h"')),
    ("the code may use no fakes",
     wrong_includes("src/worker/a.cc", '#include "base/testing/fake.h"')),
    ("a folder without leave may not be included",
     wrong_includes("src/base/a.h", '#include "worker/a.h"')),
    ("llama.cpp stays in its adapter", wrong_includes("src/worker/a.cc", "#include <llama.h>")),
    ("llama.cpp may be seen by its adapter",
     not wrong_includes("src/engine/llama_model.cc", "#include <llama.h>")),
    ("Beast stays out of the worker",
     wrong_includes("src/worker/a.cc", "#include <boost/beast/core.hpp>")),
    ("a link that the table allows passes",
     not wrong_links("pensieve_library(worker SOURCES a.cc LINKS pensieve_base pensieve_engine)")),
    ("another link does not",
     wrong_links("pensieve_library(worker SOURCES a.cc LINKS pensieve_gateway)")),
    ("a link that is added later is seen too",
     wrong_links("pensieve_library(worker)\ntarget_link_libraries(pensieve_worker PRIVATE curl)")),
    ("the real clock is banned", banned("src/a/b.cc", "auto t = steady_clock::now();")),
    ("but for one file", not banned("src/base/clock.cc", "return steady_clock::now();")),
    ("a timer that no simulation can move is banned",
     banned("src/a/b.cc", "boost::asio::steady_timer timer(io);")),
    ("a comment may name it", not banned("src/a/b.cc", "int x;  // Not steady_clock::now().")),
    ("unknown as zero is banned", banned("src/a/b.cc", "x.value_or(0u);")),
    ("a reason on the line before allows",
     not banned("src/a/b.cc", "// A foreign callback. pensieve-allow: catch-all\n} catch (...) {")),
    ("a reason for something else does not",
     banned("src/a/b.cc", "// pensieve-allow: clock\n} catch (...) {")),
    ("a conditional inside co_await is found", banned("src/a/b.cc", "co_await f(a ? *a : g());")),
    ("a capturing lambda inside co_await is found",
     banned("src/a/b.cc", "co_await f(x, [&](int i) { return i; });")),
    ("a plain co_await passes", not banned("src/a/b.cc", "co_await f(a::b, x[i]);")),
    ("500 lines are allowed", not banned("src/a/b.cc", "x\n" * 500)),
    ("501 are not", banned("src/a/b.cc", "x\n" * 501)),
    ("100 columns are allowed", not banned("src/a/b.cc", "x" * 100)),
    ("101 are not", banned("src/a/b.cc", "x" * 101)),
    ("a function of 70 lines is allowed", not banned("src/a/b.cc", long_function(70))),
    ("one of 71 is not", banned("src/a/b.cc", long_function(71))),
    ("a header without the guard is found", banned("src/a/b.h", "int x;")),
    ("a path of one machine is found", banned("README.md", "see /ro" + "ot/x")),
    ("a path below a variable is not", not banned("README.md", "see $HOME/ro" + "ot/x")),
    ("bytes are compared", limits.defined("kA", "inline constexpr Bytes kA = 8_MiB;") == 8 * 2**20),
    ("shifts are", limits.defined("kA", "constexpr std::size_t kA{1u << 20};") == 2**20),
    ("digit separators are", limits.defined("kA", "constexpr int kA = 1'000;") == 1000),
    ("durations are",
     limits.defined("kA", "constexpr Duration kA = std::chrono::milliseconds(300);") == 0.3),
    ("a unit is read", limits.documented("300 ms") == 0.3),
    ("a thousand is read", limits.documented("1,000 lines") == 1000),
    ("a wrong row is found", limits.check_row("kA", "9", "a.h", "constexpr int kA = 8;")),
    ("a right row passes", not limits.check_row("kA", "8", "a.h", "constexpr int kA = 8;")),
    ("a constant that is gone is found",
     limits.check_row("kB", "8", "a.h", "constexpr int kA = 8;")),
    ("a bar inside backticks stays in its cell",
     tables.table_with("| a | b |\n|---|---|\n| `x|y` | z |", "a", "b")[0]["a"] == "`x|y`"),
    *((sentence, summed(script, status, *cases) == line)
      for sentence, script, status, cases, line in ENDS),
]

if __name__ == "__main__":
    failed = [sentence for sentence, holds in CASES if not holds]
    for sentence in failed:
        print(f"does not hold: {sentence}")
    sys.exit(1 if failed else 0)
