"""Factor effects: main effects and two-way interactions of a grid, as one contrast of the cells of each seed.

A main effect is the mean difference between a level and the first level of its factor, over all points at which both
were run. Each point has both levels once, so effects are not confounded with other factors. Where a factor does not
apply, its points share one run, which counts at each of them. The interaction A x B is the difference between the
effect of A at a level of B and its effect at B's first level (Montgomery, Design and Analysis of Experiments, chapter
5, where it is half of that). Seeds are the pairs, as for contrasts of arms.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ablations.study.arms import cell, short
from ablations.study.schema import Study

MAX_EFFECTS = 60
"""With more effects than this, interactions are left out: in so large a family hardly any test can be significant."""

Point = tuple[int, ...]
"""The number of the level of each factor."""
Levels = tuple[tuple[int, int], ...]
"""Pairs (factor, level), both by number."""


@dataclass(frozen=True)
class Effect:
    """One effect: its name, and the weight of each arm in it."""

    name: str
    against: str
    """The reference level; empty for an interaction."""
    weights: dict[str, float]
    points: int
    """Combinations of the other factors over which it is the mean."""
    of: int
    """All combinations of the other factors."""

    def by_seed(self, scores: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
        """The effect of each seed that has a score in every arm it needs, from scores by arm and seed."""
        seeds = set.intersection(*(set(scores.get(arm, {})) for arm in self.weights))
        return {seed: sum(weight * scores[arm][seed] for arm, weight in self.weights.items()) for seed in sorted(seeds)}


class Effects(NamedTuple):
    """The effects of a grid in their order, and a line for each effect that cannot be estimated or is left out."""

    effects: list[Effect]
    missing: list[str]


class _Grid(NamedTuple):
    paths: list[str]
    labels: list[list[str]]
    arms: dict[Point, str]

    def level(self, factor: int, level: int) -> str:
        return f"{short(self.paths[factor])}={self.labels[factor][level]}"


def effects_of(study: Study) -> Effects:
    """The main effects and two-way interactions of a study with two factors or more; nothing for others."""
    factors = study.factors or {}
    if sum(len(values) > 1 for values in factors.values()) < 2:
        return Effects([], [])
    grid = _Grid(list(factors), [list(values) for values in factors.values()], _arms(study))
    main = [((f, level),) for f, labels in enumerate(grid.labels) for level in range(1, len(labels))]
    two_way = [(one, other) for (one,), (other,) in itertools.combinations(main, 2) if one[0] != other[0]]
    missing = []
    if len(main) + len(two_way) > MAX_EFFECTS:
        missing.append(f"{len(two_way)} interactions are left out: with them there would be over {MAX_EFFECTS} effects")
        two_way = []
    effects = []
    for levels in [*main, *two_way]:
        found = _effect(grid, levels)
        if isinstance(found, Effect):
            effects.append(found)
        else:
            missing.append(found)
    return Effects(effects, missing)


def _arms(study: Study) -> dict[Point, str]:
    """The arm at each point of the grid. Points that were left out are absent; merged points share one arm."""
    factors = study.factors or {}
    found = {}
    for point in itertools.product(*(range(len(values)) for values in factors.values())):
        levels = zip(factors.items(), point, strict=True)
        name = cell(study.base, {path: list(values.items())[level] for (path, values), level in levels}).name
        if name in study.compared.overrides:
            found[point] = name
    return found


def _effect(grid: _Grid, levels: Levels) -> Effect | str:
    """The effect of one level, or the interaction of two; or why there is none."""
    name = " × ".join(grid.level(*each) for each in levels)
    own = {factor for factor, _ in levels}
    others = [range(1 if factor in own else len(labels)) for factor, labels in enumerate(grid.labels)]
    corners = [chosen for size in range(len(levels) + 1) for chosen in itertools.combinations(levels, size)]
    compared: list[tuple[str, ...]] = []
    left_out = False
    contexts = list(itertools.product(*others))
    for context in contexts:
        arms = tuple(grid.arms.get(_moved(context, chosen), "") for chosen in corners)
        left_out |= "" in arms
        # Where a factor does not apply, its levels share one run, and there is nothing to compare.
        if "" not in arms and len(set(arms)) == len(arms):
            compared.append(arms)
    if not compared:
        why = (
            "requires or excludes leave out a part of every comparison"
            if left_out
            else "one factor applies at only one level of the other"
        )
        return f"not estimable: {name}: {why}"
    weights: dict[str, float] = {}
    for arms in compared:
        for arm, chosen in zip(arms, corners, strict=True):
            weights[arm] = weights.get(arm, 0.0) + (-1) ** (len(levels) - len(chosen)) / len(compared)
    against = grid.level(levels[0][0], 0) if len(levels) == 1 else ""
    return Effect(name, against, weights, len(compared), len(contexts))


def _moved(point: Point, levels: Levels) -> Point:
    """The point with the factors of `levels` at those levels."""
    chosen = dict(levels)
    return tuple(chosen.get(factor, level) for factor, level in enumerate(point))


def effects_tested(study: Study) -> int:
    """The number of effects with a verdict. A study with looks tests none: its seeds are added for the contrasts."""
    return 0 if study.looks else len(effects_of(study).effects)


def count_tests(study: Study) -> int:
    """The size of the study's family of tests: contrasts and effects with a verdict."""
    return len(study.pairs) + effects_tested(study)
