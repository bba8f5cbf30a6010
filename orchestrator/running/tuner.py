"""Fitting: the trials of one phase under Ray Tune, to their end."""

from __future__ import annotations

from typing import Any

from ray import tune

from cluster.spec import ClusterSpec
from orchestrator.running.callbacks import Silence, Watch
from orchestrator.running.trial import bundle, trial
from orchestrator.store.folder import Store

MOST_HALVINGS = 10
"""Tune has one number for all causes of a death, which must only be finite and not the smaller: a micro-batch of 1,024
samples is halved no more often."""


def fit(
    study: str, spec: ClusterSpec, store: Store, space: dict[str, Any], slots: int, watch: Watch, **options: Any
) -> None:
    """Run the trials that `space` lists, or that the searcher in `options` proposes, at most `slots` at once."""
    resources: dict[str, float] = {"CPU": spec.cpus_per_worker}
    if spec.gpus_per_worker:
        resources["GPU"] = spec.gpus_per_worker
    tune.Tuner(
        tune.with_resources(trial, bundle(spec.workers, resources)),
        param_space=space,
        tune_config=tune.TuneConfig(
            max_concurrent_trials=slots,
            reuse_actors=spec.workers == 1,
            trial_dirname_creator=_folder,
            trial_name_creator=_folder,
            **options,
        ),
        run_config=tune.RunConfig(
            name=study,
            storage_path=str(store.ray_dir),
            verbose=0,
            callbacks=[watch, Silence()],
            # Tune sees only processes that died; of what, and whether the budget of that is spent, Watch knows
            failure_config=tune.FailureConfig(max_failures=spec.retries.lost + MOST_HALVINGS),
        ),
    ).fit()


def _folder(trial: Any) -> str:
    """A trial's folder is called as its run: parameters in a name make paths of 300 characters."""
    return str(trial.config["job"]["run_id"])
