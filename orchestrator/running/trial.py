"""One Tune trial. A run of one worker trains in the trial's own process; a run of more starts a Ray Train group."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray import train, tune

from orchestrator.running.ray_failures import of_ray
from orchestrator.running.retries import Attempts
from orchestrator.running.shared_store import must_see
from trainer.files import run_folder
from trainer.files.failure import Failure
from trainer.worker import train_worker

DRIVER_MEMORY = 128 * 1024**2
"""Bytes that the driver of a multi-worker run asks for: no CPU, which its workers need, and never nothing."""


def trial(config: dict[str, Any]) -> None:
    """Tune's trainable. `config["job"]`: settings for `train_worker`, and the cluster's terms.

    A failed attempt is tried again here, as its cause allows, and the last one stands in the run's folder. Tune sees
    only what ends this process, and a full disk.
    """
    job = config["job"]
    must_see(**job["store"])
    attempts = Attempts(job)
    failure = Failure(**job["refused"]) if job["refused"] else None
    while failure is None:
        place = {**job["place"], "micro_batch": attempts.begin()}
        failure = attempt({**job, "place": place})
        if failure is None:
            return
        if attempts.record_retry(failure):
            failure = None
    out = Path(job["place"]["out_dir"])
    run_folder.clear_failure(out)
    run_folder.write_failure(out, *attempts.explained(failure))


def attempt(job: dict[str, Any]) -> Failure | None:
    """Train once; why it failed, if it did."""
    out = Path(job["place"]["out_dir"])
    run_folder.clear_failure(out)
    seen = None
    if job["workers"] == 1:
        # oneDNN remembers, by thread, a scratch space that it could not have, and then refuses smaller ones as well
        with ThreadPoolExecutor(1) as thread:
            thread.submit(train_worker, job).result()
    else:
        try:
            _group(job)
        except train.TrainingFailedError as error:
            seen = of_ray(error)
            if seen.cause == "disk":
                raise
    heard = run_folder.read_failure(out)
    # What a worker wrote down before the group ended says more, unless it says only that it lost another.
    if heard is not None and heard["cause"] != "lost":
        return Failure(**heard)
    return seen


def _group(job: dict[str, Any]) -> None:
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    TorchTrainer(
        train_worker,
        train_loop_config=job,
        scaling_config=train.ScalingConfig(
            num_workers=job["workers"],
            use_gpu=bool(job["resources"].get("GPU")),
            resources_per_worker=job["resources"],
            placement_strategy="PACK",
        ),
        run_config=train.RunConfig(
            # One name and path a run: a trial that starts again finds its own group's state.
            name=job["run_id"],
            storage_path=job["ray_dir"],
            # Train's one number would be spent by bugs as by lost machines; `trial` counts them apart
            failure_config=train.FailureConfig(max_failures=0, controller_failure_limit=1),
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def placement_group(workers: int, resources: dict[str, float]) -> tune.PlacementGroupFactory:
    """What a trial itself reserves: its only worker's resources, or a driver's sliver beside the workers' own."""
    return tune.PlacementGroupFactory([resources if workers == 1 else {"memory": DRIVER_MEMORY}])
