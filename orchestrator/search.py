"""Our Tune Searcher over Optuna's ask and tell.

Proposal n is a function of (seed, n, what was told before): the sampler is made anew for every n. Optuna's study
lives in memory and is rebuilt from the ledger, so a killed search goes on as if it had never stopped.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from ray.tune.search import Searcher

from ablations.plan import proposes, search_identity, space, start_points
from ablations.ranking import Trial
from ablations.space import Dimension, Search
from ablations.study import Study
from trainer.config import UserError

MOST_INFEASIBLE = 1000
"""Proposals that may be infeasible in a row before the space is called empty."""

PATIENCE = 10
"""Infeasible proposals after which the rest are random: TPE learns nothing from a point that was never trained, and
where one choice is always refused it has only seen the other, and proposes the refused one for ever."""


class Proposal(NamedTuple):
    """An earlier proposal: the run that computes it, and what came of it."""

    run_id: str
    trial: Trial


def proposals(study: Study, events: Iterable[Mapping[str, Any]]) -> list[Proposal]:
    """The proposals of this very search so far, in order, from the ledger's events."""
    identity = search_identity(study)
    asked: dict[int, dict[str, Any]] = {}
    ends: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["event"] == "trial" and event["study"] == study.name and event["search"] == identity:
            asked[event["number"]] = dict(event)
        elif event["event"] in ("finished", "stopped", "failed"):
            ends[event["run_id"]] = dict(event)
    result = []
    for number, proposal in sorted(asked.items()):
        end = ends.get(proposal["run_id"], {"event": "running"})
        last = end.get("last") or {}
        epochs = int(last.get("epoch", 0))
        trial = Trial(number, proposal["values"], end["event"], epochs, last, end.get("reason", ""))
        result.append(Proposal(proposal["run_id"], trial))
    return result


def sampler(search: Search, number: int, attempt: int = 0) -> BaseSampler:
    """The sampler of proposal `number`, asked for the `attempt`-th time: the same whatever ran before."""
    seed = int(np.random.SeedSequence([search.seed, number, attempt]).generate_state(1)[0])
    if search.sampler == "random" or attempt >= PATIENCE:
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed, n_startup_trials=search.startup, multivariate=True, group=True, constant_liar=True)


def rebuild(study: Study, history: Iterable[Proposal]) -> optuna.Study:
    """An Optuna study in memory that has been told all that ended."""
    optuna.logging.set_verbosity(logging.WARNING)
    assert study.search is not None
    result = optuna.create_study(direction="maximize")
    for _, trial in history:
        if trial.state != "running":
            asked, _ = _ask(study, result, sampler(study.search, trial.number), trial.values)
            _tell(result, asked, trial.state, trial.metrics.get(study.search.metric), trial.epochs)
    return result


def importances(study: Study, history: Iterable[Proposal]) -> dict[str, float]:
    """PED-ANOVA importance of each dimension, over finished trials; empty where there are too few to say."""
    optimised = rebuild(study, history)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(optuna.importance.get_param_importances(optimised, evaluator=evaluator))
    except (ValueError, RuntimeError):
        return {}


class StudySearcher(Searcher):
    """Proposes a study's trials to Tune. `begin(number, values)` makes the trial's job and records it, or raises
    UserError where the point is infeasible: it is told as failed, and another is asked for. None says that the same
    run trains now, in the same folder: Tune asks again later. `ended(run_id, error)` says how a trial ended: its
    status, and the metrics of its last epoch.
    """

    def __init__(
        self,
        study: Study,
        history: list[Proposal],
        begin: Callable[[int, dict[str, Any]], dict[str, Any] | None],
        ended: Callable[[str, bool], tuple[str, dict[str, float]]],
    ) -> None:
        assert study.search is not None
        super().__init__(metric=study.search.metric, mode="max")
        self.study = study
        self.search = study.search
        self.optimised = rebuild(study, history)
        self.again = [trial for _, trial in history if trial.state == "running"]
        self.count = len(history)
        self.start = start_points(study)[self.count :]
        self.begin = begin
        self.ended = ended
        self.asked: dict[str, tuple[optuna.Trial, str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for a restore of its own; ours reads the ledger."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config: one that a kill interrupted, a known point, or the sampler's next."""
        if self.again:
            earlier = self.again[0]
            trial, values = _ask(self.study, self.optimised, sampler(self.search, earlier.number), earlier.values)
            config = self._started(trial_id, trial, earlier.number, values)
            if config is not None:
                self.again.pop(0)
            return config
        for attempt in range(MOST_INFEASIBLE):
            if self.count >= self.search.trials:
                return Searcher.FINISHED
            fixed = self.start[0] if self.start else {}
            trial, values = _ask(self.study, self.optimised, sampler(self.search, self.count, attempt), fixed)
            try:
                config = self._started(trial_id, trial, self.count, values)
            except UserError:
                self.optimised.tell(trial, state=TrialState.FAIL)
                self.start = self.start[1:]
                continue
            if config is not None:
                self.count += 1
                self.start = self.start[1:]
            return config
        raise UserError(f"{self.study.name}: {MOST_INFEASIBLE} proposals in a row were infeasible; loosen the space")

    def _started(
        self, trial_id: str, trial: optuna.Trial, number: int, values: dict[str, Any]
    ) -> dict[str, Any] | None:
        job = self.begin(number, values)
        if job is None:
            self.optimised.tell(trial, state=TrialState.FAIL)
            return None
        self.asked[trial_id] = (trial, job["run_id"])
        return {"job": job}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing to learn before the end: stopping is the scheduler's."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell how the trial ended."""
        trial, run_id = self.asked.pop(trial_id)
        status, last = self.ended(run_id, error)
        _tell(self.optimised, trial, status, last.get(self.search.metric), int(last.get("epoch", 0)))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger holds what a search has been told."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: `proposals` restores from the ledger."""


def _ask(
    study: Study, optimised: optuna.Study, chooser: BaseSampler, fixed: Mapping[str, Any]
) -> tuple[optuna.Trial, dict[str, Any]]:
    """A trial and its values; `fixed` are given, the sampler chooses the rest."""
    optimised.sampler = chooser
    if fixed:
        optimised.enqueue_trial(dict(fixed))
    trial = optimised.ask()
    values: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path, dimension in space(study).items():
            if proposes(study, path, values):
                values[path] = _suggest(trial, path, dimension)
    return trial, values


def _suggest(trial: optuna.Trial, path: str, dimension: Dimension) -> Any:
    if dimension.kind == "choice":
        return trial.suggest_categorical(path, list(dimension.choices))
    if dimension.kind == "int":
        return trial.suggest_int(path, int(dimension.low), int(dimension.high))
    return trial.suggest_float(path, dimension.low, dimension.high, log=dimension.kind == "log")


def _tell(optimised: optuna.Study, trial: optuna.Trial, status: str, value: float | None, epoch: int) -> None:
    """Finished is COMPLETE, stopped is PRUNED at its epoch, anything else is FAIL."""
    if status == "finished" and value is not None:
        optimised.tell(trial, value)
    elif status == "stopped" and value is not None:
        trial.report(value, epoch)
        optimised.tell(trial, state=TrialState.PRUNED)
    else:
        optimised.tell(trial, state=TrialState.FAIL)
