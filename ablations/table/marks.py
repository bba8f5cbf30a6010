"""Marks: which row of a table is marked as the best and which as the second best, by verdicts alone.

An arm ranks above another if a verdict says so, directly or via other arms (A better than B, B better than
C). The best ranks above all other arms, the second above all but the best. A higher mean is not enough, and undecided
or missing verdicts do not count. Teachers are left out. Of two arms one can be the best, and none is the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ablations.table.shape import Table

Mark = Literal["best", "second"]


def marks(table: Table) -> dict[int, Mark]:
    """Row number -> mark. An arm's first row, which has its score, is marked."""
    first = {row.values["arm"]: i for i, row in enumerate(table.rows) if row.values.get("role") == "arm"}
    below: dict[str, set[str]] = {arm: set() for arm in first}
    for row in table.rows:
        arm, reference = row.values.get("arm"), row.values.get("reference")
        if arm in below and reference in below:
            if row.values.get("verdict") == "better":
                below[arm].add(reference)
            elif row.values.get("verdict") == "worse":
                below[reference].add(arm)
    reached = {arm: len(_reachable(arm, below)) for arm in below}
    # Unless verdicts contradict each other, at most one arm ranks above all others, and one above all but that one.
    best = [arm for arm in below if reached[arm] == len(below) - 1]
    second = [arm for arm in below if reached[arm] == len(below) - 2]
    if len(best) != 1 or len(below) < 2:
        return {}
    found: dict[int, Mark] = {first[best[0]]: "best"}
    if len(second) == 1 and len(below) > 2:
        found[first[second[0]]] = "second"
    return found


def mark_note(table: Table, best: str, second: str) -> str:
    """What the marks mean; `best` and `second` name them in a format (`bold`, `underlined`). Empty without verdicts."""
    if not any(row.values.get("verdict") and row.values.get("role") == "arm" for row in table.rows):
        return ""
    found = marks(table).values()
    if not found:
        return f"no arm is {best}: none is better than all others"
    said = f"{best}: better than every other arm, directly or via others"
    return f"{said}; {second}: better than all but that one" if "second" in found else said


def _reachable(arm: str, below: Mapping[str, set[str]]) -> set[str]:
    """All arms that this one ranks above."""
    found: set[str] = set()
    ahead = list(below[arm])
    while ahead:
        if (name := ahead.pop()) not in found:
            found.add(name)
            ahead += below[name]
    return found
