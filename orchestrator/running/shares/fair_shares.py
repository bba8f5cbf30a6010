"""Fair shares: how many runs each study may have in flight on one cluster. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cluster.spec import amounts

_TICKS = 10_000
"""Ray counts resources in ten-thousandths; counting likewise lets 3 x 0.1 CPUs fit into 0.3."""


class Demand(NamedTuple):
    """What a driver's study has and wants. `need`: Ray resources of one run (`cluster.concurrency.footprint`)."""

    need: dict[str, float]
    in_flight: int
    """Runs that hold or await a place; none of them is ended for another study."""
    wanted: int
    """Runs that it could have in flight now, those included."""
    priority: float = 1
    extra: Mapping[str, float] = {}
    """What the runs in flight take beyond `in_flight` times `need`; negative where they take less."""

    @property
    def names(self) -> set[str]:
        """The resources that its runs take."""
        return {*self.need, *self.extra}

    def taken(self, name: str, runs: int) -> float:
        """How much of a resource the study takes with so many runs."""
        return runs * self.need.get(name, 0.0) + self.extra.get(name, 0.0)


def shares(capacity: Mapping[str, float], demands: Sequence[Demand]) -> list[int]:
    """The runs that each study may have in flight: weighted max-min fairness of dominant shares, in whole runs.

    Free room goes, run by run, to the study at the lowest level: the largest part of any resource that its runs take,
    divided by its priority. At equal levels the first in `demands` comes first. Where that study's run does not fit,
    the room is kept for it, as small runs of others would take it for ever, unless it has runs and would be above all
    others with one more.
    """
    room = {name: round(amount * _TICKS) for name, amount in capacity.items()}
    needs = [{name: round(amount * _TICKS) for name, amount in demand.need.items()} for demand in demands]
    may = [demand.in_flight for demand in demands]
    free = dict(room)
    for demand in demands:
        _take(free, {name: round(demand.taken(name, demand.in_flight) * _TICKS) for name in demand.names})
    ever_fits = [_fits(need, room) for need in needs]

    def level(study: int, more: int = 0) -> float:
        demand, runs = demands[study], may[study] + more
        parts = [demand.taken(name, runs) * _TICKS / room[name] for name in demand.names if room.get(name)]
        return max(parts, default=0.0) / demand.priority

    waiting = [study for study, demand in enumerate(demands) if ever_fits[study] and may[study] < demand.wanted]
    while waiting:
        first = min(waiting, key=level)
        if _fits(needs[first], free):
            _take(free, needs[first])
            may[first] += 1
            if may[first] == demands[first].wanted:
                waiting.remove(first)
        else:
            waiting.remove(first)
            if not may[first] or level(first, 1) <= max(map(level, waiting), default=0.0):
                _take(free, needs[first])
    return may


def _fits(need: Mapping[str, int], free: Mapping[str, int]) -> bool:
    return all(amount <= free.get(name, 0) for name, amount in need.items())


def _take(free: dict[str, int], need: Mapping[str, int]) -> None:
    for name, amount in need.items():
        free[name] = free.get(name, 0) - amount


def why_waiting(need: Mapping[str, float], capacity: Mapping[str, float], others: Sequence[Demand]) -> str:
    """`waiting for 1 GPU: 3 studies ahead use 8`; `others` have no more than their shares in flight."""
    used = {name: sum(other.taken(name, other.in_flight) for other in others) for name in need}
    # GPUs are named before CPUs, of which there are usually enough
    scarce = max(need, key=lambda name: (used[name] / capacity[name] if capacity.get(name) else 0, name))
    ahead = sum(bool(other.in_flight and other.taken(scarce, other.in_flight) > 0) for other in others)
    waits = f"waiting for {amounts({scarce: need[scarce]})}"
    if not ahead:
        return f"{waits}, kept for the larger runs of another study"
    studies = "1 study ahead uses" if ahead == 1 else f"{ahead} studies ahead use"
    return f"{waits}: {studies} {round(used[scarce], 4):g}"
