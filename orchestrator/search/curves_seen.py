"""Values of trials at rungs and running averages of finished trials, read from the ledger once for each trial."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping

from ablations.study.early_stopping import Curve
from ablations.study.search import Search
from orchestrator.state.proposals import Proposal, curve
from orchestrator.store.ledger_run import LedgerRun

Runs = Mapping[str, LedgerRun]
"""By run id."""


class RungValues:
    """The metric of each trial at the rungs of its bracket."""

    def __init__(self, search: Search, epochs: int) -> None:
        self.search = search
        self._rungs = [search.rungs(epochs, bracket) for bracket in range(search.brackets)]
        self._found: dict[tuple[str, int], float] = {}

    def of(self, bracket: int) -> list[int]:
        """The rungs of a bracket, in epochs."""
        return list(self._rungs[bracket])

    def at(self, bracket: int, rung: int, trials: Iterable[Proposal], runs: Runs, but: str) -> list[float]:
        """The values at a rung of a bracket's trials that have reached it, except the run `but`."""
        values = []
        for run_id, trial in trials:
            if run_id == but or self.search.bracket(trial.number) != bracket:
                continue
            if (run_id, rung) not in self._found and (value := self._look(run_id, rung, runs)) is not None:
                self._found[run_id, rung] = value
            if (run_id, rung) in self._found:
                values.append(self._found[run_id, rung])
        return values

    def _look(self, run_id: str, rung: int, runs: Runs) -> float | None:
        run = runs.get(run_id)
        if run is None or (run.status == "stopped" and run.last.get("epoch", 0) < rung):
            return None
        return curve(run, self.search.metric).get(rung)


class FinishedAverages:
    """The running averages of finished trials' curves."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self._found: dict[str, Curve] = {}

    def at(self, epoch: int, run_ids: Iterable[str], runs: Runs) -> list[float]:
        """The average of each run up to an epoch, of those that had measured by then."""
        values = []
        for run_id in run_ids:
            if run_id not in self._found:
                self._found[run_id] = _running(curve(runs.get(run_id), self.metric))
            averages = self._found[run_id]
            if (at := max((e for e in averages if e <= epoch), default=None)) is not None:
                values.append(averages[at])
        return values


def _running(shown: Curve) -> Curve:
    """Epoch -> the mean of a curve up to it."""
    whole = [(epoch, value) for epoch, value in sorted(shown.items()) if not math.isnan(value)]
    sums = itertools.accumulate(value for _, value in whole)
    return {epoch: total / count for count, ((epoch, _), total) in enumerate(zip(whole, sums, strict=True), 1)}
