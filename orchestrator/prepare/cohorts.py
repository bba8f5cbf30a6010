"""Cohorts: which runs train together in one process with one pass of their teacher, and which of them start first.

A pure function of the runs' costs. It never makes a study slower by these costs: runs trained one by one are among the
choices, and on two free cores two cohorts of three runs may end sooner than one of six.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cluster.overrides import LARGEST
from cluster.spec import ClusterSpec

MOST = 16
"""The largest cohort of `cohort: auto`: a process that dies interrupts no more runs than these."""

GAIN = 0.99
"""Cohorts are only formed where they need at most this share of the time of single runs: costs are estimates."""


class Costed(NamedTuple):
    """A run with its costs. All costs have one unit, seconds or operations; only their ratios matter."""

    name: str
    group: str
    """Runs of one group may train together; empty: only alone."""
    student: float
    """Cost of an epoch but for the teacher."""
    teacher: float
    """Cost of the teacher's part of an epoch, which a cohort pays once; 0 of a run without one."""
    epochs: tuple[float, float]
    """The epochs done, and the epochs that the run has in all."""
    fits: int = LARGEST
    """The most runs like this one that the memory of a process holds."""


class Cohort(NamedTuple):
    """Runs that train together, in the order of the plan, and what they cost."""

    runs: tuple[Costed, ...]
    cost: float


def most_runs(spec: ClusterSpec) -> int:
    """The largest cohort that a spec allows; 1 where each run trains alone."""
    if spec.cohort == "off" or spec.most_workers > 1:
        return 1
    return MOST if spec.cohort == "auto" else spec.cohort


def form(runs: Sequence[Costed], slots: int, most: int = MOST) -> list[Cohort]:
    """The cohorts, of `most` runs at most, in the order in which they start; `slots` train at once.

    Every run is in one of them, and within a cohort runs keep their order. Without a gain each run is alone, in order.
    """
    alone = [_cohort([run]) for run in runs]
    best = alone
    for size in _sizes(min(most, len(runs))):
        found = _improved(sorted(_divided(runs, size), key=_longest_first), slots)
        if len(found) < len(runs) and _figure(found, slots) < _figure(best, slots) and _gains(found, alone, slots):
            best = found
    return best


def cost(runs: Iterable[Costed]) -> float:
    """The cost of a cohort: what its students need, and the teacher's part of each epoch that one of them trains."""
    students, part, first, last = 0.0, 0.0, math.inf, 0.0
    for run in runs:
        done, end = run.epochs
        students += run.student * (end - done)
        if run.teacher:
            part, first, last = max(part, run.teacher), min(first, done), max(last, end)
    return students + (part * (last - first) if part else 0.0)


def ends(lengths: Iterable[float], slots: int) -> list[float]:
    """When each slot is done, if what comes next starts where a slot is free first."""
    free = [0.0] * slots
    for length in lengths:
        heapq.heapreplace(free, free[0] + length)
    return free


def _cohort(runs: Sequence[Costed]) -> Cohort:
    return Cohort(tuple(runs), cost(runs))


def _longest_first(cohort: Cohort) -> float:
    """The key of their order."""
    return -cohort.cost


def _sizes(most: int) -> Iterator[int]:
    """The sizes that are tried: the largest, and its halves."""
    while most > 1:
        yield most
        most = -(-most // 2)


def _figure(cohorts: Sequence[Cohort], slots: int) -> tuple[float, float]:
    """What is made small: the time until all have ended, then the sum of their times."""
    lengths = [cohort.cost for cohort in cohorts]
    return max(ends(lengths, slots), default=0.0), sum(lengths)


def _gains(found: Sequence[Cohort], alone: Sequence[Cohort], slots: int) -> bool:
    (time, total), (time_alone, total_alone) = _figure(found, slots), _figure(alone, slots)
    return time < GAIN * time_alone or (time <= time_alone and total < GAIN * total_alone)


def _divided(runs: Sequence[Costed], size: int) -> list[Cohort]:
    """The runs of each group in as few cohorts as hold them, of about equal cost."""
    groups: dict[str, list[Costed]] = {}
    for number, run in enumerate(runs):
        groups.setdefault(run.group or f"alone {number}", []).append(run)
    found: list[Cohort] = []
    for members in groups.values():
        shares = sum(run.teacher > 0 for run in members) > 1
        largest = max(1, min(size, *(run.fits for run in members))) if shares else 1
        found += _balanced(members, -(-len(members) // largest))
    return found


def _balanced(members: Sequence[Costed], count: int) -> list[Cohort]:
    """The members in `count` cohorts of about equal cost, and of equal size but for one run."""
    # dealt out, the longest first, to and fro: each round gives every cohort one
    order = sorted(range(len(members)), key=lambda n: -cost((members[n],)))
    parts: list[list[int]] = [[] for _ in range(count)]
    for place, number in enumerate(order):
        turn, seat = divmod(place, count)
        parts[seat if turn % 2 == 0 else count - 1 - seat].append(number)
    return [_cohort([members[number] for number in sorted(part)]) for part in parts if part]


def _improved(cohorts: list[Cohort], slots: int) -> list[Cohort]:
    """Halve cohorts of the slots that end last as long as all end sooner. `cohorts` are in their order, the longest
    first, and so is what is returned."""
    while True:
        now = _ends_sorted(cohorts, slots)
        halved = [_with_halves(cohorts, number) for number in _last_ones(cohorts, slots)]
        best = min(halved, key=lambda found: _ends_sorted(found, slots), default=None)
        if best is None or _ends_sorted(best, slots) >= now:
            return cohorts
        cohorts = best


def _ends_sorted(cohorts: Sequence[Cohort], slots: int) -> list[float]:
    """The ends of the slots, latest first, rounded: sums in another order differ in their last digits."""
    return sorted((float(f"{end:.9g}") for end in ends((c.cost for c in cohorts), slots)), reverse=True)


def _last_ones(cohorts: Sequence[Cohort], slots: int) -> list[int]:
    """The cohorts of several runs in a slot that ends last, one of each size and cost."""
    free = [(0.0, slot) for slot in range(slots)]
    where: list[int] = []
    for cohort in cohorts:
        end, slot = free[0]
        where.append(slot)
        heapq.heapreplace(free, (end + cohort.cost, slot))
    _, last = max(free)
    kinds = {
        (len(cohort.runs), cohort.cost): number
        for number, cohort in enumerate(cohorts)
        if where[number] == last and len(cohort.runs) > 1
    }
    return list(kinds.values())


def _with_halves(cohorts: Sequence[Cohort], number: int) -> list[Cohort]:
    found = [*cohorts[:number], *cohorts[number + 1 :]]
    for half in _balanced(cohorts[number].runs, 2):
        bisect.insort(found, half, key=_longest_first)
    return found
