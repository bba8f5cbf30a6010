"""OptunaSampling: Optuna's ask and tell for a search, on an in-memory study that is rebuilt from the ledger."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from ablations.study.grid_points import grid_points
from ablations.study.plan import proposes, space, start_points
from ablations.study.schema import Study
from ablations.study.trial import Trial
from orchestrator.search.optuna_trials import distribution, in_memory, optuna_trial, scores
from orchestrator.search.samplers import GENERATION, sampler


class OptunaSampling:
    """Asks Optuna for the values of proposals and tells it their results, by the number of the proposal."""

    def __init__(self, study: Study, told: Sequence[Trial] = ()) -> None:
        assert study.search is not None
        self.study = study
        self.search = study.search
        self.space = space(study)
        self.start = start_points(study)
        self.points = (
            grid_points(study.base, self.search, study.requires, study.excludes)
            if self.search.sampler == "grid"
            else None
        )
        self.optuna_study = in_memory(self.search)
        self.told = [optuna_trial(self.search, trial, attributes={GENERATION: 0}) for trial in told]
        self.optuna_study.add_trials(self.told)
        self.asked: dict[int, optuna.Trial] = {}

    def ask(self, number: int, attempt: int = 0) -> dict[str, Any]:
        """The values of a new proposal."""
        fixed: Mapping[str, Any] = {}
        if self.points is not None:
            fixed = self.points[number]
        elif attempt == 0 and number < len(self.start):
            fixed = self.start[number]
        return self._ask(number, attempt, fixed)

    def repeat(self, trial: Trial) -> None:
        """Ask again for a recorded proposal, and before it for the infeasible ones of the same number."""
        for attempt in range(trial.infeasible):
            self.ask(trial.number, attempt)
            self.refuse(trial.number)
        self._ask(trial.number, trial.infeasible, trial.values)

    def refuse(self, number: int) -> None:
        """Tell that the proposal is infeasible; another is asked for under the same number."""
        self.optuna_study.tell(self.asked.pop(number), state=TrialState.FAIL)

    def tell(self, trial: Trial) -> None:
        """Tell how a trial ended: finished is COMPLETE, stopped is PRUNED at its epoch, anything else is FAIL."""
        asked = self.asked.pop(trial.number)
        end = optuna_trial(self.search, trial)
        for epoch, value in end.intermediate_values.items():
            asked.report(value, epoch)
        self.optuna_study.tell(asked, scores(self.search, trial), state=end.state)

    def rebuild(self, trials: Iterable[Trial]) -> None:
        """Repeat ask and tell for all ended trials, in the order of their numbers."""
        for trial in trials:
            if trial.state != "running":
                self.repeat(trial)
                self.tell(trial)

    def _ask(self, number: int, attempt: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a proposal: `fixed` ones as given, the others by the sampler."""
        self.optuna_study.sampler = sampler(self.search, number, attempt, self.told)
        if fixed:
            self.optuna_study.enqueue_trial(dict(fixed))
        asked = self.asked[number] = self.optuna_study.ask()
        values: dict[str, Any] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # read even where all values are fixed: CMA-ES and NSGA-II then record the trial's generation
            if self.search.sampler in ("cmaes", "nsga2"):
                _ = asked.relative_params
            for path, dimension in self.space.items():
                if proposes(self.study, path, values):
                    values[path] = _suggest(asked, path, distribution(dimension))
        return values


def _suggest(trial: optuna.Trial, path: str, given: optuna.distributions.BaseDistribution) -> Any:
    if isinstance(given, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(path, given.choices)
    if isinstance(given, optuna.distributions.IntDistribution):
        return trial.suggest_int(path, given.low, given.high)
    assert isinstance(given, optuna.distributions.FloatDistribution)
    return trial.suggest_float(path, given.low, given.high, log=given.log)
