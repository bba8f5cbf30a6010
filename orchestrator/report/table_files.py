"""The files of a table: text, Markdown, LaTeX, CSV and Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ablations.table.latex import to_latex
from ablations.table.shape import Table
from ablations.table.text import to_markdown, to_plain
from trainer.config import printable
from trainer.files.atomic import replacing
from trainer.files.run_folder import write_text

TABLE = ("table.txt", "table.md", "table.tex", "table.csv", "table.parquet")
FORMULA = ("=", "+", "-", "@")
"""What begins a formula in a spreadsheet; control characters, which may as well, are written out."""


def write_table(table: Table, folder: Path) -> None:
    """Write `TABLE` into an existing folder."""
    rows = values_of(table)
    write_text(folder / "table.txt", to_plain(table))
    write_text(folder / "table.md", to_markdown(table))
    write_text(folder / "table.tex", to_latex(table))
    write_text(folder / "table.csv", to_csv(rows))
    with replacing(folder / "table.parquet") as temporary:
        pq.write_table(to_columns(rows), temporary)


def values_of(table: Table) -> list[dict[str, Any]]:
    """The raw numbers behind the rows of a table."""
    return [row.values for row in table.rows]


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, with the columns of all rows; items of a list are separated by semicolons."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = _names(rows)
    writer.writerow(map(_cell, names))
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A value for a spreadsheet, which would run a text that begins like a formula: an apostrophe makes it text."""
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    if not isinstance(value, str):
        return value
    text = printable(value)
    begins = text.strip()
    return f"'{text}" if len(begins) > 1 and begins[0] in FORMULA else text


def to_columns(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as typed columns: numbers as float64 or int64, lists as lists, mixed types as text."""
    return pa.table({name: _column([row.get(name) for row in rows]) for name in _names(rows)})


def _names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _column(values: list[Any]) -> pa.Array:
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values if value is not None
    )
    if numbers and any(isinstance(value, float) for value in values):
        return pa.array(values, pa.float64())
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
