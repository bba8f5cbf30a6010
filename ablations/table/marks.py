"""Marks: which row of a table may be set as the best, and which as the second, by its verdicts alone.

The rule. An arm lies above another where a verdict says so, or where a chain of verdicts does: better than what is
better. The best lies above every other arm; the second above every other arm but the best. A higher mean alone earns
no mark, nor does a verdict that is undecided or still to come. Teachers take no part. Of two arms one can be the best,
and none the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ablations.table.shape import Table

Mark = Literal["best", "second"]
SCORE = "mIoU"
"""Heading of the column that a mark is set in."""


def marks(table: Table) -> dict[int, Mark]:
    """The marked rows by number; an arm's first row holds its score."""
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
    # As in a tournament: only one arm can lie above all others, and under it only one above all the rest.
    best = [arm for arm in below if reached[arm] == len(below) - 1]
    second = [arm for arm in below if reached[arm] == len(below) - 2]
    if len(best) != 1 or len(below) < 2:
        return {}
    found: dict[int, Mark] = {first[best[0]]: "best"}
    if len(second) == 1 and len(below) > 2:
        found[first[second[0]]] = "second"
    return found


def mark_note(table: Table, best: str, second: str) -> str:
    """What the marks mean, in the words of a format (`bold`, `underlined`); empty where no verdict is on arms."""
    if not any(row.values.get("verdict") and row.values.get("role") == "arm" for row in table.rows):
        return ""
    found = marks(table).values()
    if not found:
        return f"{best} would be an arm that the verdicts place above all others: there is none"
    said = f"{best}: by the verdicts better than every other arm, directly or in a chain"
    return f"{said}; {second}: better than all but that one" if "second" in found else said


def _reachable(arm: str, below: Mapping[str, set[str]]) -> set[str]:
    """All arms below this one."""
    found: set[str] = set()
    ahead = list(below[arm])
    while ahead:
        if (name := ahead.pop()) not in found:
            found.add(name)
            ahead += below[name]
    return found
