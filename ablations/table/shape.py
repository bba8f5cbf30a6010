"""Tabular: the shape of a table, whatever it is of, and numbers as tables show them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """A heading, and whether its cells are numbers, which align right."""

    heading: str
    right: bool = False


@dataclass(frozen=True)
class Row:
    """One cell a column, as shown; and the raw numbers behind them, by name, for files."""

    cells: tuple[str, ...]
    values: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A title, columns, rows, notes without which the rows must not be read, and tables that stand under this one."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    more: tuple[Table, ...] = ()


def number(value: float | None, digits: int = 1, signed: bool = False) -> str:
    """A number as shown: no minus before zero, and `-` where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def difference(mean: float, low: float, high: float, pairs: int) -> str:
    """A mean paired difference and its interval, as shown; empty without a pair, and without interval of one."""
    if not pairs:
        return ""
    limits = f" [{number(low)}, {number(high)}]" if pairs > 1 else ""
    return number(mean, signed=True) + limits
