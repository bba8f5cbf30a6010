"""Stopping: which trials of a search end early, as pure functions of the curves that they have shown.

A curve maps an epoch to the search's metric there, higher is better. Every trial follows the schedule of its full
length, so a point of a curve is comparable whatever became of the trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Literal, NamedTuple

from ablations.study.search import Search

Curve = Mapping[int, float]

FEWEST = 5
"""Finished trials before the median rule judges: of fewer, the median is any trial's luck."""


def passes_rung(value: float, others: Sequence[float], eta: int) -> bool:
    """Whether a trial goes on past a rung: it is among the best 1/eta of those that have reached it, itself included
    (asynchronous successive halving, Li et al., MLSys 2020, Algorithm 2)."""
    if math.isnan(value):
        return False
    better = sum(other > value for other in others)
    return better < math.ceil((len(others) + 1) / eta)


def passes_median(curve: Curve, epoch: int, finished: Sequence[Curve]) -> bool:
    """Whether a trial goes on after `epoch`: its best value so far is not below the median of the running averages, up
    to the same epoch, of the finished trials (Golovin et al., KDD 2017, section 3.2.2)."""
    return passes_averages(curve, epoch, [fmean(seen) for other in finished if (seen := _until(other, epoch))])


def passes_averages(curve: Curve, epoch: int, averages: Sequence[float]) -> bool:
    """`passes_median`, given the running averages of the finished trials up to the epoch."""
    if len(averages) < FEWEST:
        return True
    return max(_until(curve, epoch), default=-math.inf) >= median(averages)


def _until(curve: Curve, epoch: int) -> list[float]:
    return [value for at, value in curve.items() if at <= epoch and not math.isnan(value)]


class Seen(NamedTuple):
    """What there is of a trial: its curve so far, and whether it has come to an end of its own."""

    curve: Curve
    end: Literal["", "finished", "failed"] = ""


class Verdict(NamedTuple):
    """What is to become of a trial: it trains on, waits for the others of its batch, or is over. `epoch` is where it
    was stopped."""

    state: Literal["trains", "waits", "stopped", "ended"]
    epoch: int = 0


def lockstep(search: Search, epochs: int, trials: Sequence[Seen]) -> list[Verdict]:
    """The verdicts on the trials of a deterministic search, by number, whatever the order in which they were trained.

    Batches follow each other. At a rung nobody is judged before all of the batch that get there have got there; then
    each is held against all that stood at the rung in earlier batches and its own. The median rule holds a trial
    against the earlier batches. The trials may end within a batch: what is not proposed yet is waited for, up to
    `search.trials`.
    """
    verdicts: list[Verdict] = []
    stood: dict[tuple[int, int], list[float]] = {}
    total = max(search.trials, len(trials))
    while len(verdicts) < len(trials):
        first = len(verdicts)
        numbers = range(first, min(first + search.batch, total))
        batch = {number: trials[number] if number < len(trials) else Seen({}) for number in numbers}
        finished = [
            trials[n].curve for n, v in enumerate(verdicts) if v.state == "ended" and trials[n].end == "finished"
        ]
        judged = _by_median(search, epochs, batch, finished)
        for bracket in range(search.brackets):
            of_bracket = {n: seen for n, seen in batch.items() if search.bracket(n) == bracket}
            judged |= _at_rungs(search, search.rungs(epochs, bracket), of_bracket, bracket, stood)
        verdicts += [judged.get(n) or _itself(seen) for n, seen in batch.items() if n < len(trials)]
    return verdicts


def _by_median(search: Search, epochs: int, batch: Mapping[int, Seen], finished: Sequence[Curve]) -> dict[int, Verdict]:
    found = {}
    for number, seen in batch.items() if search.stop == "median" else ():
        for epoch in sorted(seen.curve):
            if search.min_epochs <= epoch < epochs and not passes_median(seen.curve, epoch, finished):
                found[number] = Verdict("stopped", epoch)
                break
    return found


def _at_rungs(
    search: Search,
    rungs: Sequence[int],
    batch: Mapping[int, Seen],
    bracket: int,
    stood: dict[tuple[int, int], list[float]],
) -> dict[int, Verdict]:
    """The verdicts on the trials of a bracket in one batch, as far as rungs decide; `stood` gains what stood there."""
    found: dict[int, Verdict] = {}
    going = dict(batch)
    for rung in rungs:
        here = {number: seen.curve[rung] for number, seen in going.items() if rung in seen.curve}
        if any(rung not in seen.curve and not seen.end for seen in going.values()):
            return found | {number: Verdict("waits") for number in here}
        earlier = stood.setdefault((bracket, rung), [])
        for number, value in here.items():
            beside = [other for n, other in here.items() if n != number]
            if not passes_rung(value, earlier + beside, search.eta):
                found[number] = Verdict("stopped", rung)
                del going[number]
        earlier += here.values()
    return found


def _itself(seen: Seen) -> Verdict:
    return Verdict("ended" if seen.end else "trains")
