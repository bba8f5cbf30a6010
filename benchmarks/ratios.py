"""Ratios that a benchmark measured, kept for the table of `benchmarks/bench.py`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

FILE = "TRANSKD_RATIOS"
"""The environment variable that names the file for them; without it nothing is kept."""


class Ratio(NamedTuple):
    """One line of the table."""

    measure: str
    """What is compared with what, on which sizes."""
    ratio: float
    """Above 1: ours is better than what it is compared with."""
    target: float | None = None
    """What it is to reach, where there is a target."""


def record(measure: str, ratio: float, target: float | None = None) -> None:
    """Keep a ratio for the table, if one is being made."""
    if path := os.environ.get(FILE):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(Ratio(measure, ratio, target)) + "\n")


def recorded(path: Path) -> list[Ratio]:
    """The ratios in a file, in their order."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Ratio(*json.loads(line)) for line in lines]
