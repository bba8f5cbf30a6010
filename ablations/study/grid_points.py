"""Grid points: all proposals of a grid search, in the order in which they are made."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.study.arms import check_count, grid
from ablations.study.search import Dimension, Search
from trainer.config import UserError, located


def grid_points(
    base: Mapping[str, Any], search: Search, requires: Mapping[str, Sequence[str]], excludes: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """All points of a grid search, as proposals: numbers, and labels of choices. A dimension that does not apply at a
    point is left out, so points may merge; points that contradict `requires` or `excludes` are left out.

    The search's seed shuffles them, so that a grid that is stopped early has sampled the whole space. Raises UserError
    where no point is left, or where `trials` exceeds their number.
    """
    with located("search.space"):
        check_count({path: _count(dimension) for path, dimension in search.space.items()})
    factors = {path: _values(dimension) for path, dimension in search.space.items()}
    with located("search.space"):
        arms = grid(base, factors, requires, excludes)
    points = [
        {path: search.space[path].proposal(value) for path, value in changes.items()}
        for changes in arms.overrides.values()
    ]
    if search.trials > len(points):
        raise UserError(
            f"search.trials is {search.trials} but the grid has {len(points)} points; lower it, or remove it"
        )
    random.Random(search.seed).shuffle(points)
    return points


def _count(dimension: Dimension) -> int:
    return len(dimension.choices) if dimension.kind == "choice" else int(dimension.high) - int(dimension.low) + 1


def _values(dimension: Dimension) -> dict[str, Any]:
    if dimension.kind == "choice":
        return dimension.choices
    return {str(value): value for value in range(int(dimension.low), int(dimension.high) + 1)}
