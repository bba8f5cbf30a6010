"""Fitting: the trials of one phase under Ray Tune, to their end."""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from cluster.spec import ClusterSpec
from orchestrator.running.callbacks import RunCallbacks, Silence
from orchestrator.running.trial import placement_group, trial
from orchestrator.store.folder import Store

MOST_HALVINGS = 10
"""Tune has one number for all causes of a death, which must only be finite and not the smaller: a micro-batch of 1,024
samples is halved no more often."""


def fit(
    study: str,
    spec: ClusterSpec,
    store: Store,
    slots: int,
    callbacks: RunCallbacks,
    searcher: Searcher,
    scheduler: TrialScheduler | None = None,
) -> None:
    """Run the trials that the searcher gives, at most `slots` at once; the scheduler may end one after an epoch."""
    resources: dict[str, float] = {"CPU": spec.cpus_per_worker}
    if spec.gpus_per_worker:
        resources["GPU"] = spec.gpus_per_worker
    tune.Tuner(
        tune.with_resources(trial, placement_group(spec.workers, resources)),
        tune_config=tune.TuneConfig(
            max_concurrent_trials=slots,
            reuse_actors=spec.workers == 1,
            trial_dirname_creator=_folder,
            trial_name_creator=_folder,
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,  # the searcher says when there is no more: a trial may be started more than once
        ),
        run_config=tune.RunConfig(
            name=study,
            storage_path=str(store.ray_dir),
            verbose=0,
            callbacks=[callbacks, Silence()],
            # Tune sees only processes that died; of what, and whether the budget of that is spent, RunCallbacks knows
            failure_config=tune.FailureConfig(max_failures=spec.retries.lost + MOST_HALVINGS),
        ),
    ).fit()


def _folder(trial: Any) -> str:
    """A trial's folder is called as its run: parameters in a name make paths of 300 characters."""
    return str(trial.config["job"]["run_id"])
