"""Reads the tables of ARCHITECTURE.md that the checks compare with the code."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]


def tables(markdown: str):
    """Yields each table as a list of rows; a row is a dict from lower-case heading to cell."""
    heading, rows = None, []
    for line in markdown.splitlines() + [""]:
        if not line.lstrip().startswith("|"):
            if heading is not None:
                yield rows
            heading, rows = None, []
            continue
        # A `|` inside backticks belongs to the cell.
        guarded = re.sub(r"`[^`]*`", lambda code: code.group().replace("|", "\0"), line.strip())
        cells = [cell.strip().replace("\0", "|") for cell in guarded.strip("|").split("|")]
        if heading is None:
            heading = [cell.lower() for cell in cells]
        elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            rows.append(dict(zip(heading, cells)))


def table_with(markdown: str, *columns: str):
    """The first table that has all of `columns`; an empty list where there is none."""
    for rows in tables(markdown):
        if rows and all(column in rows[0] for column in columns):
            return rows
    return []


def code_words(cell: str):
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def architecture() -> str:
    path = ROOT / "ARCHITECTURE.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""
