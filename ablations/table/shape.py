"""Table shape: columns, rows and notes, whatever the table shows, and how numbers are formatted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from trainer.config import printable


@dataclass(frozen=True)
class Column:
    """A heading, and whether its cells are aligned right, as numbers are."""

    heading: str
    right: bool = False


@dataclass(frozen=True)
class Row:
    """One cell for each column, as shown, and the raw values by name, for files."""

    cells: tuple[str, ...]
    values: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A title, columns, rows, the notes needed to read them, and further tables to show below this one."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    more: tuple[Table, ...] = ()

    def __post_init__(self) -> None:
        """Write control characters out: cells and notes hold names and reasons, which may be somebody else's."""
        rows = tuple(replace(row, cells=tuple(map(printable, row.cells))) for row in self.rows)
        columns = tuple(replace(column, heading=printable(column.heading)) for column in self.columns)
        cleaned = {"title": printable(self.title), "columns": columns, "rows": rows}
        for name, value in (cleaned | {"notes": tuple(map(printable, self.notes))}).items():
            object.__setattr__(self, name, value)


def number(value: float | None, digits: int = 1, signed: bool = False) -> str:
    """A number as shown: zero without a minus, and `-` for None and NaN."""
    if value is None or math.isnan(value):
        return "-"
    return f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def difference(mean: float, low: float, high: float, pairs: int) -> str:
    """A mean paired difference and its interval, as shown: no interval for one pair, and empty without pairs."""
    if not pairs:
        return ""
    limits = f" [{number(low)}, {number(high)}]" if pairs > 1 else ""
    return number(mean, signed=True) + limits
