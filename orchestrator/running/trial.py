"""One Tune trial. A run of one worker trains in the trial's process; a run of several starts a Ray Train group."""

from __future__ import annotations

import os
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
"""Memory in bytes that the trial of a multi-worker run reserves: it must reserve something, but no CPU."""


def trial(config: dict[str, Any]) -> None:
    """Tune's trainable. `config["job"]`: settings for `train_worker`, and for retries.

    Failed attempts are retried here; the final failure is written to the run's folder. Tune only sees the death of this
    process, which a failed GPU causes too, and a full disk.
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
        if failure.cause == "device" and job["workers"] == 1:
            os._exit(1)  # CUDA in this process is lost to every later run; RunCallbacks reads the cause from the folder
        if attempts.record_retry(failure):
            failure = None
    out = Path(job["place"]["out_dir"])
    run_folder.clear_failure(out)
    run_folder.write_failure(out, *attempts.explained(failure))


def attempt(job: dict[str, Any]) -> Failure | None:
    """Train once; returns the failure, if any."""
    out = Path(job["place"]["out_dir"])
    run_folder.clear_failure(out)
    seen = None
    if job["workers"] == 1:
        # after a failed allocation oneDNN refuses smaller ones in the same thread too: each attempt has its own
        with ThreadPoolExecutor(1) as thread:
            thread.submit(train_worker, job).result()
    else:
        seen = _group(job)
        while seen is not None and seen.cause == "waiting":  # its place was given back: ask for it again
            seen = _group(job)
    heard = run_folder.read_failure(out)
    # a worker's own failure takes precedence over Ray's error, unless it only lost another worker
    if heard is not None and heard["cause"] != "lost":
        return Failure(**heard)
    return seen


def _group(job: dict[str, Any]) -> Failure | None:
    """Train in a group of workers; returns what Ray saw fail. Raises where the disk is full."""
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    run_folder.wait_for_workers(Path(job["place"]["out_dir"]))
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=job,
        scaling_config=train.ScalingConfig(
            num_workers=job["workers"],
            use_gpu=bool(job["resources"].get("GPU")),
            resources_per_worker=job["resources"],
            placement_strategy="PACK",
        ),
        run_config=train.RunConfig(
            # by run id: a restarted trial finds the state of its own group
            name=job["run_id"],
            storage_path=job["ray_dir"],
            # `trial` counts retries by cause; Ray Train has only one number for all
            failure_config=train.FailureConfig(max_failures=0, controller_failure_limit=1),
            callbacks=[TuneReportCallback()],
        ),
    )
    try:
        trainer.fit()
    except train.TrainingFailedError as error:
        seen = of_ray(error)
        if seen.cause == "disk":
            raise
        return seen
    return None


def placement_group(workers: int, resources: dict[str, float]) -> tune.PlacementGroupFactory:
    """The resources of a trial: those of its only worker, or with several workers a little memory."""
    return tune.PlacementGroupFactory([resources if workers == 1 else {"memory": DRIVER_MEMORY}])
