"""Run the trials of one phase under Ray Tune until all have ended."""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.search_generator import SearchGenerator

from cluster.spec import ClusterSpec, variants
from orchestrator.prepare.cohorts import most_runs
from orchestrator.running.callbacks import RunCallbacks, Silence
from orchestrator.running.machines.avoided import machines_for
from orchestrator.running.shared_searcher import SharedSearcher
from orchestrator.running.trial import placement_group, trial
from orchestrator.store.folder import Store

MOST_HALVINGS = 10
"""Restarts for halving the micro-batch, added to Tune's `max_failures`, which counts all causes of a dead process: a
micro-batch of 1,024 samples can be halved 10 times."""


class InOrder(FIFOScheduler):
    """Starts trials in their order. Tune keeps a list of those that wait; its own scheduler also looks through all
    trials for one, at each event, which takes longer the more trials there have been."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial that starts again does not on a machine that takes no more runs (`avoided.py`). Tune lists those that
        wait by their resources, from now on."""
        if trial.status == Trial.ERROR:
            trial.update_resources(_resources(trial.config))

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """No other than those of Tune's list."""


class Trials(SearchGenerator):
    """Tune's trials, at most `slots` at once. While the study has to wait for its share of a cluster, they have ended
    for Tune, which otherwise keeps the process and the place of a trial that has ended for the next one."""

    def __init__(self, searcher: SharedSearcher, slots: int) -> None:
        super().__init__(ConcurrencyLimiter(searcher, max_concurrent=slots))
        self._shared = searcher

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for its own restore, which is not used."""
        return {}

    def is_finished(self) -> bool:
        """Whether Tune is to start no further trial now."""
        return super().is_finished() or self._shared.is_held()


def fit(
    study: str,
    spec: ClusterSpec,
    store: Store,
    slots: int,
    callbacks: RunCallbacks,
    searcher: SharedSearcher,
    scheduler: TrialScheduler | None = None,
) -> None:
    """Run the trials that the searcher gives, at most `slots` at once; the scheduler may stop one after an epoch."""
    deaths = spec.retries.lost + spec.retries.device + MOST_HALVINGS
    tune.Tuner(
        tune.with_resources(trial, _resources),
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            trial_dirname_creator=_folder,
            trial_name_creator=_folder,
            search_alg=Trials(searcher, slots),
            scheduler=scheduler or InOrder(),
            num_samples=-1,  # the searcher decides when to end: a trial may be started more than once
        ),
        run_config=tune.RunConfig(
            name=study,
            storage_path=str(store.ray_dir),
            verbose=0,
            callbacks=[callbacks, Silence()],
            # an upper bound for dead processes; RunCallbacks applies the retry budget of each run and cause
            failure_config=tune.FailureConfig(max_failures=deaths * max(map(most_runs, variants(spec).values()))),
        ),
    ).fit()


def _resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """The resources of a trial, all of whose runs are given the same."""
    job = config["jobs"][0]
    # the workers of a group have machines of their own (`worker_group.py`)
    return placement_group(job["workers"], job["resources"], machines_for(job))


def _folder(trial: Any) -> str:
    """A trial's folder has its first run's id as its name: with parameters the path would have 300 characters."""
    return str(trial.config["jobs"][0]["run_id"])
