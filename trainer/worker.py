"""fit() inside Ray: in a Tune trial's own process, or as one worker of a Ray Train run. The one file here with Ray."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import ray.tune
import torch

from trainer.config import parse
from trainer.files import run_folder
from trainer.files.failure import failure_of
from trainer.place import Place
from trainer.training import parallel
from trainer.training.loop import fit
from trainer.training.memory import release_memory

LOCK_WAIT_S = 60.0
"""Longest wait for the process that trained the run before: Ray ends it seconds after its driver was killed."""


def train_worker(settings: dict[str, Any]) -> None:
    """Train one run. `settings`: config (plain data), place (Place's fields), workers (of the run).

    What ends an attempt is written into the run's folder, and not raised: whoever started it decides what follows. But
    a full disk is raised, where nothing can be written; and all is in one of several workers, so that Ray ends those
    that wait for it.
    """
    place = Place(**settings["place"])
    distributed = settings["workers"] > 1
    if distributed and place.device == "cuda":  # the workers of a machine see all of its GPUs
        device = ray.train.torch.get_device()
        torch.cuda.set_device(device)
        place = replace(place, device=str(device))

    def report(metrics: dict[str, float], checkpoint: Path | None) -> None:
        if distributed:
            ray.train.report(metrics)
        else:
            ray.tune.report(metrics)

    try:
        # of a run's workers one holds its folder, against what a killed driver's Ray has not ended yet
        with run_folder.lock_folder(place.out_dir, LOCK_WAIT_S) if parallel.rank() == 0 else contextlib.nullcontext():
            fit(parse(settings["config"]), place, report=report)
    except Exception as error:
        failure = failure_of(error)
        if failure.cause == "disk":
            raise
        run_folder.write_failure(place.out_dir, *failure)
        if failure.cause == "bug":
            run_folder.write_text(place.out_dir / "traceback.txt", traceback.format_exc())
        if distributed:
            raise
    finally:  # the error is gone by now, and with it the frames that held the run's tensors
        release_memory()
