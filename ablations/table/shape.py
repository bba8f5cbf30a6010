"""Table shape: columns, rows and notes, whatever the table shows, and how numbers are formatted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from trainer.config import printable

MOST_NOTES = 3
"""The most short notes below a table. What bold and underlined mean is one of them (see `mark_note`)."""


@dataclass(frozen=True)
class Column:
    """A heading, and whether its cells are aligned right, as numbers are."""

    heading: str
    right: bool = False
    marked: bool = False
    """Whether its cells show which arm is the best (see marks.py)."""


@dataclass(frozen=True)
class Row:
    """One cell for each column, as shown, and the raw values by name, for files."""

    cells: tuple[str, ...]
    values: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A title, columns, rows, at most `MOST_NOTES` short notes, and further tables to show below this one."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    more: tuple[Table, ...] = ()
    next_step: str = ""
    """What to do next, in one line."""
    explained: tuple[str, ...] = ()
    """Everything that affects how the rows are read, in sentences, for `transkd explain` and the page."""

    def __post_init__(self) -> None:
        """Write control characters out: cells and notes hold names and reasons, which may be somebody else's."""
        rows = tuple(replace(row, cells=tuple(map(printable, row.cells))) for row in self.rows)
        columns = tuple(replace(column, heading=printable(column.heading)) for column in self.columns)
        cleaned = {"title": printable(self.title), "columns": columns, "rows": rows}
        notes = {name: tuple(map(printable, getattr(self, name))) for name in ("notes", "explained")}
        for name, value in (cleaned | notes).items():
            object.__setattr__(self, name, value)


def number(value: float | None, digits: int = 1, signed: bool = False) -> str:
    """A number as shown: zero without a minus, and `-` for None and NaN."""
    if value is None or math.isnan(value):
        return "-"
    return f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def difference(mean: float, low: float, high: float, digits: int = 1) -> str:
    """A mean difference and the interval of its test, as shown; empty where there is none (NaN).

    No interval while seeds have not ended (NaN), and words in its place where so few seeds have none (infinite).
    """
    if math.isnan(mean):
        return ""
    if math.isnan(low):
        return number(mean, digits, signed=True)
    limits = "n too small" if math.isinf(low) or math.isinf(high) else f"{_limit(low, digits)}, {_limit(high, digits)}"
    return f"{number(mean, digits, signed=True)} [{limits}]"


def _limit(value: float, digits: int) -> str:
    """A limit of an interval. One that is not 0 is not shown as 0: it would contradict the verdict."""
    shown = number(value, digits)
    return shown if float(shown) or not value else f"{value:.1g}"
