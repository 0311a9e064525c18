"""Fails on an #include or a linked library that ARCHITECTURE.md's folder table does not allow.

The table has the columns `folder`, `may include`, `links`. In `may include`, `name` is a folder of
src/, `name.h` is only name/name.h, and `x/y.h` is only that header. In `links`, each name is a
target other than the pensieve_ libraries of those folders.
"""

import re
import sys

from tables import ROOT, architecture, code_words, table_with

SRC = ROOT / "src"
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
LINKED_EVERYWHERE = {"pensieve_options", "Threads::Threads"}
# Headers of libraries that only some files may see.
CONFINED = [
    (re.compile(r"^(llama|ggml|gguf|mtmd|common/|chat\.h|sampling\.h)"), "llama.cpp",
     lambda path: path.startswith("src/engine/llama_")),
    (re.compile(r"^seccomp\.h"), "libseccomp", lambda path: path.startswith("src/sandbox/")),
    (re.compile(r"^boost/beast"), "Boost.Beast",
     lambda path: path.startswith(("src/gateway/", "src/cli/", "bench/", "third_party/"))),
]


def allowed_headers(cell: str):
    """Splits `may include` into whole folders and single headers."""
    folders, headers = set(), set()
    for word in code_words(cell):
        if "/" in word:
            headers.add(word)
        elif word.endswith(".h"):
            headers.add(f"{word[:-2]}/{word}")
        else:
            folders.add(word)
    return folders, headers


def read_table(markdown: str):
    """folder -> (folders, single headers, linked targets)."""
    table = {}
    for row in table_with(markdown, "folder", "may include", "links"):
        for folder in code_words(row["folder"]):
            folders, headers = allowed_headers(row["may include"])
            table[folder] = (folders, headers, set(code_words(row["links"])))
    return table


def is_test_code(path: str) -> bool:
    return path.endswith("_test.cc") or "/testing/" in path or path.startswith("tests/")


def check_file(path: str, text: str, table, folders):
    """Yields what is wrong with the includes of one file; `path` is relative to the root."""
    parts = path.split("/")
    folder = parts[1] if parts[0] == "src" and len(parts) > 2 else None
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quote, name = match.groups()
        where = f"{path}:{number}"
        for pattern, library, permits in CONFINED:
            if pattern.match(name) and not permits(path):
                yield f"{where}: {library} may not be included here: {name}"
        target = name.split("/")[0]
        if quote == "<" or "/" not in name or target not in folders:
            continue
        if "/testing/" in name and not is_test_code(path):
            yield f"{where}: {name} is for tests only"
        if folder is None or target == folder or folder not in table:
            continue
        whole, single, _ = table[folder]
        if "/testing/" in name and is_test_code(path):
            continue  # Fakes are for every folder's tests.
        if target not in whole and name not in single:
            yield f"{where}: {folder} may not include {name} (table in ARCHITECTURE.md)"


def check_links(folder: str, cmake: str, table):
    """Yields what pensieve_library(folder ...) links without the table's leave."""
    whole, single, targets = table[folder]
    code = re.sub(r"#.*", "", cmake)
    call = re.search(r"pensieve_library\s*\(\s*" + re.escape(folder) + r"\b(.*?)\)", code, re.S)
    if not call:
        yield f"src/{folder}/CMakeLists.txt: no pensieve_library({folder} ...)"
        return
    links = call.group(1).split("LINKS", 1)
    words = links[1].split() if len(links) == 2 else []
    for extra in re.findall(r"target_link_libraries\s*\(\s*pensieve_" + re.escape(folder) +
                            r"\b(.*?)\)", code, re.S):
        words += [word for word in extra.split() if word not in ("PRIVATE", "PUBLIC", "INTERFACE")]
    reachable = whole | {header.split("/")[0] for header in single}
    for word in words:
        ours = word.removeprefix("pensieve_") if word.startswith("pensieve_") else None
        if word in LINKED_EVERYWHERE or word in targets or ours in reachable:
            continue
        yield f"src/{folder}/CMakeLists.txt: links {word} (table in ARCHITECTURE.md)"


def problems():
    table = read_table(architecture())
    if not table:
        yield "ARCHITECTURE.md has no table with the columns folder, may include, links"
        return
    folders = {entry.name for entry in SRC.iterdir() if entry.is_dir()}
    for folder in sorted(folders - table.keys()):
        yield f"src/{folder} has no row in ARCHITECTURE.md's folder table"
    for folder in sorted(table.keys() - folders):
        yield f"ARCHITECTURE.md's folder table has a row for {folder}, which is not in src/"
    for top in ("src", "bench", "tests"):
        for path in sorted((ROOT / top).rglob("*")):
            if path.suffix in (".h", ".cc"):
                relative = path.relative_to(ROOT).as_posix()
                yield from check_file(relative, path.read_text(encoding="utf-8"), table, folders)
    for folder in sorted(folders & table.keys()):
        cmake = SRC / folder / "CMakeLists.txt"
        if not cmake.exists():
            yield f"src/{folder} has no CMakeLists.txt"
            continue
        yield from check_links(folder, cmake.read_text(encoding="utf-8"), table)


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found))
    sys.exit(1 if found else 0)
