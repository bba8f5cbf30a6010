"""Early stopping: asynchronous successive halving (Li et al., MLSys 2020) as a pure rule, and Tune's thin scheduler.

Rungs are epochs of our own `epoch` metric; what stood at a rung is read from the runs' own records, so a killed study
decides as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from ablations.space import Search
from trainer.record import read_epochs


def goes_on(value: float, others: Sequence[float], eta: int) -> bool:
    """Whether a trial passes a rung: it is among the best 1/eta of those that have reached it, itself included."""
    if math.isnan(value):
        return False
    better = sum(other > value for other in others)
    return better < math.ceil((len(others) + 1) / eta)


class Halving(FIFOScheduler):
    """Applies `goes_on` at every rung of a search. Rungs are filled from earlier trials' records when it starts."""

    def __init__(self, search: Search, epochs: int, earlier: Iterable[Path]) -> None:
        super().__init__()
        self.search = search
        self.at: dict[int, dict[str, float]] = {rung: {} for rung in search.rungs(epochs)}
        for folder in earlier:
            for record in read_epochs(folder):
                self._enter(folder.name, record)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a trial that falls short at a rung."""
        passed = self.passes(trial.config["job"]["run_id"], result)
        return TrialScheduler.CONTINUE if passed else TrialScheduler.STOP

    def passes(self, name: str, result: Mapping[str, Any]) -> bool:
        """Whether a trial goes on after an epoch; at a rung, its value stands there from now on."""
        value = self._enter(name, result)
        if value is None:
            return True
        others = [other for key, other in self.at[int(result["epoch"])].items() if key != name]
        return goes_on(value, others, self.search.eta)

    def _enter(self, name: str, result: Mapping[str, Any]) -> float | None:
        """Note a trial's value where its epoch is a rung."""
        epoch = int(result.get("epoch", 0))
        if epoch not in self.at or self.search.metric not in result:
            return None
        return self.at[epoch].setdefault(name, float(result[self.search.metric]))
