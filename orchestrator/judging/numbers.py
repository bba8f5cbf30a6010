"""Numbers: the number in a cell, and the text of one."""

from __future__ import annotations

import math
from typing import Any

from orchestrator.report.table_files import FORMULA


def is_empty(cell: Any) -> bool:
    """Whether a cell holds nothing."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def number_of(cell: Any) -> float | None:
    """The number in a cell, NaN and infinity too; None where it holds text."""
    if isinstance(cell, bool) or (isinstance(cell, str) and "_" in cell):  # Python reads 1_000
        return None
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def text_of(cell: Any) -> str:
    """A cell as a name: text as it stands, without the apostrophe of our own CSV; whole numbers without a point."""
    if not isinstance(cell, str):
        return "" if cell is None else seed_of(cell)
    text = cell.strip()
    return text[1:] if text[:1] == "'" and text[1:2] in FORMULA else text


def seed_of(cell: Any) -> str:
    """A cell as a seed, which is one whether it stands as 1, 1.0 or the text of either."""
    number = number_of(cell)
    if number is not None and math.isfinite(number) and number == int(number):
        return str(int(number))
    return text_of(cell) if isinstance(cell, str) else str(cell)
