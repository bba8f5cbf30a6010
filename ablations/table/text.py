"""Text: a table as plain text or Markdown, for files, logs and notebooks."""

from __future__ import annotations

import re
import unicodedata

from ablations.table.shape import Table


def to_plain(table: Table) -> str:
    """Aligned columns without rules, the notes below, then further tables; ends with a newline."""
    grid = [tuple(column.heading for column in table.columns), *(row.cells for row in table.rows)]
    widths = [max(map(_width, cells)) for cells in zip(*grid, strict=True)]
    lines = [
        "   ".join(
            " " * (width - _width(cell)) + cell if column.right else cell + " " * (width - _width(cell))
            for cell, width, column in zip(cells, widths, table.columns, strict=True)
        ).rstrip()
        for cells in grid
    ]
    text = "\n".join([table.title, *lines, *(f" {note}" for note in below(table))]) + "\n"
    return "\n".join([text, *map(to_plain, table.more)])


def _width(text: str) -> int:
    """The columns that a text takes in a terminal: two of a Chinese character, none of an accent on another one."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def to_markdown(table: Table) -> str:
    """A heading, a pipe table, the notes as a list, then further tables; ends with a newline."""
    lines = [
        f"### {_escaped(table.title)}",
        "",
        _piped([column.heading for column in table.columns]),
        "| " + " | ".join("---:" if column.right else "---" for column in table.columns) + " |",
        *(_piped(row.cells) for row in table.rows),
        "",
        *(f"- {_escaped(note)}" for note in below(table)),
    ]
    return "\n".join(["\n".join(lines) + "\n", *map(to_markdown, table.more)])


def below(table: Table, mark: str = "") -> list[str]:
    """The lines below the rows: the notes, what `mark_note` says, and the next step."""
    return [*table.notes, *filter(None, [mark, table.next_step])]


def _piped(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    """Text in which Markdown finds no mark: emphasis, code, links, HTML, mathematics, headings, lists."""
    for mark in "\\|*_`<&$~":
        text = text.replace(mark, f"\\{mark}")
    text = re.sub(r"\](?=[(:\[])", r"\\]", " ".join(text.split()))
    return re.sub(r"^(\d*)([#>]|[.)+=-](?= ))", r"\1\\\2", text)
