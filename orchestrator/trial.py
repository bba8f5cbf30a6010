"""One Tune trial. A run of one worker trains in the trial's own process; a run of more starts a Ray Train group."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from typing import Any

from ray import train, tune

from orchestrator.shared import must_see
from trainer.worker import train_worker

DRIVER_MEMORY = 128 * 1024**2
"""Bytes that the driver of a multi-worker run asks for: no CPU, which its workers need, and never nothing."""


def trial(config: dict[str, Any]) -> None:
    """Tune's trainable. `config["job"]`: settings for `train_worker`, and the cluster's terms."""
    job = config["job"]
    must_see(**job["store"])
    if job["workers"] == 1:
        train_worker(job)
        _give_back()
        return
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
            failure_config=train.FailureConfig(max_failures=job["max_failures"], controller_failure_limit=1),
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def _give_back() -> None:
    """Return a finished run's memory to the system. The process goes on to other runs, each in threads of its own, and
    glibc keeps what each thread freed: 100 MB a run, measured with SegFormer-B0."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def bundle(workers: int, resources: dict[str, float]) -> tune.PlacementGroupFactory:
    """What a trial itself reserves: its only worker's resources, or a driver's sliver beside the workers' own."""
    return tune.PlacementGroupFactory([resources if workers == 1 else {"memory": DRIVER_MEMORY}])
