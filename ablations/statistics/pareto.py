"""Pareto: which arms are on the Pareto front of accuracy and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COSTS = {"gmacs": "GMACs", "params_m": "million parameters", "latency_ms": "ms"}
"""Costs of the deployed student that have a Pareto front: name in a row -> words in a note."""


@dataclass(frozen=True)
class Point:
    """An arm as a point: its mean of the study's metric, its costs by name of `COSTS`, and the fronts it is on."""

    arm: str
    accuracy: float
    costs: dict[str, float]
    on: frozenset[str]


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other dominates, in their order. Of the first coordinate high values are better,
    of the others low ones.

    A point dominates another where it is as good in all coordinates and better in one; equal points are all kept. A
    point with a NaN cannot be compared: it is left out, and dominates nothing.
    """
    known = {i: (-p[0], *p[1:]) for i, p in enumerate(points) if not any(map(math.isnan, p))}
    return [
        i
        for i, ours in known.items()
        if not any(
            theirs != ours and all(a <= b for a, b in zip(theirs, ours, strict=True)) for theirs in known.values()
        )
    ]


def arm_points(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    """The arms of a table as points, from the values of its rows (`Row.values`), teachers left out.

    Each cost has its own front. A cost that is not known of every arm has none: an arm could be on it only because
    another was not measured.
    """
    arms = [row for row in rows if row.get("role") == "arm"]
    costs = {name for name in COSTS if arms and all(row.get(name) is not None for row in arms)}
    on = {name: {arms[i]["arm"] for i in front([(row["mean"], row[name]) for row in arms])} for name in costs}
    return [
        Point(
            row["arm"],
            row["mean"],
            {name: row[name] for name in COSTS if name in costs},
            frozenset(name for name in costs if row["arm"] in on[name]),
        )
        for row in arms
    ]


def pareto_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each cost in which arms differ: the arms on its front, the cheapest first."""
    points = arm_points(rows)
    notes = []
    for name, words in COSTS.items():
        if len({point.costs[name] for point in points if name in point.costs}) < 2:
            continue
        best = sorted((p for p in points if name in p.on), key=lambda p: (p.costs[name], p.arm))
        if best:
            notes.append(f"Pareto front of accuracy against {words}: {', '.join(p.arm for p in best)}.")
    return notes
