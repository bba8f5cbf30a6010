"""Rows of a table of arms: headings, an arm's rows with its contrasts, and the text of each cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.statistics.verdicts import Contrast
from ablations.study.arms import cost_label
from ablations.table.lacking import ranged, seeds_lacking
from ablations.table.shape import Column, Row, difference, number

HEADINGS = {
    "arm": Column("arm"),
    "trials": Column("trials", right=True),
    "n": Column("n", right=True),
    "score": Column("mIoU", right=True, marked=True),
    "reference": Column("vs"),
    "difference": Column("difference [interval]", right=True),
    "verdict": Column("verdict"),
    "best": Column("best", right=True),
    "published": Column("published", right=True),
    "reproduced": Column("reproduced"),
    "lacking": Column("seeds lacking", right=True),
    "params_m": Column("params (M)", right=True),
    "gmacs_paper": Column("GMACs (paper)", right=True),
    "gmacs": Column("GMACs (all)", right=True),
    "latency_ms": Column("ms", right=True),
    "peak_mib": Column("MiB", right=True),
}
_DIGITS = {"trials": 0, "best": 1, "latency_ms": 1, "peak_mib": 0}
"""Decimals of the columns that do not have two."""
_COSTS = ("params_m", "gmacs_paper", "gmacs")
"""Columns where values below 0.01 are shown with three significant digits, as two decimals would hide them."""


def contrast_rows(found: Sequence[Contrast], margin: float | None, tests: int) -> dict[str, list[dict[str, Any]]]:
    """The contrasts of each arm that has any, as values of its rows; `tests` is the size of their family."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        row = {"reference": one.reference, **one.found.values(), "verdict": one.verdict}
        if one.verdict == "undecided":
            row |= seeds_lacking(one, margin, tests)
        rows.setdefault(one.arm, []).append(row)
    return rows


def arm_rows(
    about: Mapping[str, Mapping[str, Any]], contrasts: Mapping[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The rows of a table: an arm's first has what is said `about` it and its first contrast; each further contrast has
    a row."""
    rows = []
    for arm, said in about.items():
        own = contrasts.get(arm, [])
        first = own[0] if own else {"reference": "-" if contrasts else ""}
        rows.append({**said, **first})
        rows += [{"arm": arm, "again": True} | row for row in own[1:]]
    return rows


def laid_out(
    rows: Sequence[dict[str, Any]], headings: Mapping[str, Column], digits: int = 1
) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
    """The columns that some row fills, and the rows; scores and differences have so many decimals."""
    cells = [{name: _cell(name, row, digits) for name in headings} for row in rows]
    shown = [name for name in headings if any(own[name] for own in cells)]
    return (
        tuple(headings[name] for name in shown),
        tuple(Row(tuple(own[name] for name in shown), row) for own, row in zip(cells, rows, strict=True)),
    )


def _cell(name: str, row: Mapping[str, Any], digits: int) -> str:
    if name == "arm":
        return "" if row.get("again") else row["arm"]
    if name == "n":
        if "n" not in row:
            return ""
        return str(row["n"]) if row["n"] == row["seeds"] else f"{row['n']}/{row['seeds']}"
    if name == "score":
        spread = f" ± {number(row['std'], digits)}" if row.get("n", 0) > 1 else ""
        return number(row["mean"], digits) + spread if "mean" in row else ""
    if name == "difference":
        if "difference" not in row:
            return ""
        return difference(row["difference"], row["interval_low"], row["interval_high"], digits)
    if name == "test" and math.isfinite(row.get("test_std", math.nan)):
        return f"{number(row['test'])} ± {number(row['test_std'])}"
    if name in ("reference", "verdict", "reproduced"):
        return row.get(name, "")
    if name == "lacking":
        return ranged(row["lacking_least"], row["lacking_most"]) if "lacking_least" in row else ""
    value = row.get(name)
    if value is None or math.isnan(value):
        return ""
    if name in _COSTS:
        return cost_label(value)
    return number(value, _DIGITS.get(name, 2 if name in HEADINGS else 1))
