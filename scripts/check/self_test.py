"""The checks find what they must and leave alone what is right: each line is a small proof."""

import sys

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
]

if __name__ == "__main__":
    failed = [sentence for sentence, holds in CASES if not holds]
    for sentence in failed:
        print(f"does not hold: {sentence}")
    sys.exit(1 if failed else 0)
