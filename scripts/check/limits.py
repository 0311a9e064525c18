"""Fails when a row of ARCHITECTURE.md's table of limits is not what the code says.

The table has the columns `constant` (its name in backticks), `value` and `file` (in backticks, from
the root or from src/). A value is a number with a unit or none: `8 MiB`, `10 s`, `1,000`.
"""

import re
import sys

from tables import ROOT, architecture, code_words, table_with

UNITS = {
    "": 1, "b": 1, "bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30,
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600,
}
LITERALS = {"_KiB": 2**10, "_MiB": 2**20, "_GiB": 2**30, "ns": 1e-9, "us": 1e-6, "ms": 1e-3,
            "s": 1, "min": 60, "h": 3600}
CHRONO = {"nanoseconds": 1e-9, "microseconds": 1e-6, "milliseconds": 1e-3, "seconds": 1,
          "minutes": 60, "hours": 3600}


def documented(cell: str):
    """The number that a value cell begins with, in bytes, seconds or plain; None if it has none."""
    match = re.match(r"`?([\d.,]+)\s*([A-Za-zµ]*)", cell)
    if not match:
        return None
    number, unit = match.groups()
    # A word that is no unit ("64 lines", "4 sequences") names what is counted.
    return float(number.replace(",", "").rstrip(".")) * UNITS.get(unit.lower(), 1)


def defined(name: str, source: str):
    """The value that `source` gives the constant, in the same terms; None if it has none."""
    source = re.sub(r"//[^\n]*", "", source)
    value = r"\s*(?:=\s*([^;,]+)|\{([^;]*)\}|\(([^;]*)\))\s*[;,]"
    match = re.search(r"\b" + re.escape(name) + value, source)
    if not match:
        return None
    expression = next(group for group in match.groups() if group is not None)
    expression = re.sub(r"(?<=\d)'(?=\d)", "", expression)
    for unit, factor in CHRONO.items():
        expression = re.sub(r"(std::)?(chrono::)?\b" + unit + r"\b\s*[({]([^(){}]*)[)}]",
                            rf"((\3)*{factor})", expression)
    expression = re.sub(r"\b(0x[0-9a-fA-F]+|\d+(?:\.\d+)?)(_[KMG]iB|ns|us|ms|min|s|h)\b",
                        lambda m: f"({m.group(1)}*{LITERALS[m.group(2)]})", expression)
    expression = re.sub(r"\b(0x[0-9a-fA-F]+|\d+(?:\.\d+)?)[uUlLzZfF]+\b", r"\1", expression)
    types = r"\b(pensieve::)?(Bytes|Duration)\b|static_cast<[^>]*>|std::(u?int\d+|size)_t"
    expression = re.sub(types, "", expression).replace("{", "(").replace("}", ")")
    if not re.fullmatch(r"[\d.\sxa-fA-F()+*/<>-]+", expression):
        return None
    try:
        return float(eval(expression, {"__builtins__": {}}))  # Only digits and operators are left.
    except (SyntaxError, ZeroDivisionError, TypeError):
        return None


def check_row(constant: str, value: str, file: str, source):
    """Says what is wrong with one row, or nothing; `source` is None where the file is missing."""
    if source is None:
        return f"{constant}: {file} does not exist"
    in_code, in_docs = defined(constant, source), documented(value)
    if in_docs is None:
        return f"{constant}: the value '{value}' is not a number with a unit"
    if in_code is None:
        return f"{constant}: no definition with a value in {file}"
    if abs(in_code - in_docs) > 1e-9 * max(abs(in_code), abs(in_docs)):
        return f"{constant}: ARCHITECTURE.md says {value}, {file} says {in_code:g}"
    return None


def problems():
    rows = table_with(architecture(), "constant", "value", "file")
    if not rows:
        yield "ARCHITECTURE.md has no table with the columns constant, value, file"
    for row in rows:
        constants, files = code_words(row["constant"]), code_words(row["file"])
        if len(constants) != 1 or len(files) != 1:
            yield f"a row must name one constant and one file in backticks: {row}"
            continue
        paths = [path for path in (ROOT / files[0], ROOT / "src" / files[0]) if path.is_file()]
        source = paths[0].read_text(encoding="utf-8") if paths else None
        problem = check_row(constants[0], row["value"], files[0], source)
        if problem:
            yield problem


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found))
    sys.exit(1 if found else 0)
