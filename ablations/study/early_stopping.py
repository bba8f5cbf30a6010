"""Early stopping: which trials of a search are stopped, as pure functions of their curves so far.

A curve maps an epoch to the search's metric at that epoch; higher is better. Every trial has the schedule of its full
length, so values at one epoch are comparable between trials, whether or not these are stopped later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Literal, NamedTuple

from ablations.study.search import Search

Curve = Mapping[int, float]

MIN_FINISHED = 5
"""Finished trials that the median rule needs before it stops any: the median of fewer is too noisy."""


def passes_rung(value: float, others: Sequence[float], eta: int) -> bool:
    """Whether a trial continues after a rung: it is among the best 1/eta of the trials that have reached the rung,
    itself included (asynchronous successive halving, Li et al., MLSys 2020, Algorithm 2)."""
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
    if len(averages) < MIN_FINISHED:
        return True
    return max(_until(curve, epoch), default=-math.inf) >= median(averages)


def _until(curve: Curve, epoch: int) -> list[float]:
    return [value for at, value in curve.items() if at <= epoch and not math.isnan(value)]


class TrialSoFar(NamedTuple):
    """A trial's curve so far, and whether it has finished or failed (being stopped is not an end of its own)."""

    curve: Curve
    end: Literal["", "finished", "failed"] = ""


class Verdict(NamedTuple):
    """The state of a trial: it trains, waits for the others of its batch, was stopped (at `epoch`) or has ended."""

    state: Literal["trains", "waits", "stopped", "ended"]
    epoch: int = 0


def batch_verdicts(search: Search, epochs: int, trials: Sequence[TrialSoFar]) -> list[Verdict]:
    """The verdicts on the trials of a deterministic search, by number, independent of the order of training.

    Batches come one after the other. At a rung, no trial is judged before every trial of the batch has reached the rung
    or ended; then each is compared with all trials of its own and of earlier batches at that rung. The median rule
    compares a trial with earlier batches only. A batch also waits for its trials that are not proposed yet, up to
    `search.trials`.
    """
    verdicts: list[Verdict] = []
    at_rung: dict[tuple[int, int], list[float]] = {}
    total = max(search.trials, len(trials))
    while len(verdicts) < len(trials):
        first = len(verdicts)
        numbers = range(first, min(first + search.batch, total))
        batch = {number: trials[number] if number < len(trials) else TrialSoFar({}) for number in numbers}
        finished = [
            trials[n].curve for n, v in enumerate(verdicts) if v.state == "ended" and trials[n].end == "finished"
        ]
        judged = _by_median(search, epochs, batch, finished)
        for bracket in range(search.brackets):
            of_bracket = {n: seen for n, seen in batch.items() if search.bracket(n) == bracket}
            judged |= _at_rungs(search, search.rungs(epochs, bracket), of_bracket, bracket, at_rung)
        verdicts += [judged.get(n) or _not_stopped(seen) for n, seen in batch.items() if n < len(trials)]
    return verdicts


def _by_median(
    search: Search, epochs: int, batch: Mapping[int, TrialSoFar], finished: Sequence[Curve]
) -> dict[int, Verdict]:
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
    batch: Mapping[int, TrialSoFar],
    bracket: int,
    at_rung: dict[tuple[int, int], list[float]],
) -> dict[int, Verdict]:
    """The verdicts at rungs on the trials of a bracket in one batch. Adds their values to `at_rung`, which has those of
    earlier batches by (bracket, rung)."""
    found: dict[int, Verdict] = {}
    going = dict(batch)
    for rung in rungs:
        here = {number: seen.curve[rung] for number, seen in going.items() if rung in seen.curve}
        if any(rung not in seen.curve and not seen.end for seen in going.values()):
            return found | {number: Verdict("waits") for number in here}
        earlier = at_rung.setdefault((bracket, rung), [])
        for number, value in here.items():
            beside = [other for n, other in here.items() if n != number]
            if not passes_rung(value, earlier + beside, search.eta):
                found[number] = Verdict("stopped", rung)
                del going[number]
        earlier += here.values()
    return found


def _not_stopped(seen: TrialSoFar) -> Verdict:
    return Verdict("ended" if seen.end else "trains")
