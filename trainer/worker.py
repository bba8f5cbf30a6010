"""fit() under Ray: in a Tune trial's process, or as one worker of a Ray Train run. Only this file imports Ray."""

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

from trainer import parallel
from trainer.config import masked, parse
from trainer.files import run_folder
from trainer.files.failure import failure_of
from trainer.place import Place
from trainer.training.loop import Report, fit
from trainer.training.memory import release_memory

LOCK_WAIT_S = 60.0
"""Longest wait for the run folder's lock: after a driver is killed, Ray takes seconds to end its worker."""


def train_worker(settings: dict[str, Any], report: Report | None = None) -> None:
    """Train one run. `settings`: config (plain data), place (Place's fields), workers (number of the run's processes).
    Tune gets the metrics of each epoch, unless `report` is given; several workers need one.

    A failure is written to failure.json in the run's folder and not raised, so that the orchestrator decides on
    retries. Two exceptions: a full disk is raised, because nothing can be written; and one of several workers always
    raises, so that Ray ends the others, which wait for it.
    """
    place = Place(**settings["place"])
    distributed = settings["workers"] > 1
    if distributed and place.device == "cuda":  # each worker sees all GPUs of its machine
        device = ray.train.torch.get_device()
        torch.cuda.set_device(device)
        place = replace(place, device=str(device))

    def to_tune(metrics: dict[str, float], checkpoint: Path | None) -> None:
        ray.tune.report(metrics)

    try:
        # worker 0 locks the folder against a worker of a killed driver that Ray has not ended yet
        with run_folder.lock_folder(place.out_dir, LOCK_WAIT_S) if parallel.rank() == 0 else contextlib.nullcontext():
            if parallel.rank() == 0:
                run_folder.workers_begin(place.out_dir)
            fit(parse(settings["config"]), place, report=report or to_tune)
    except Exception as error:
        failure = failure_of(error)
        if failure.cause == "disk":
            raise
        run_folder.write_failure(place.out_dir, *failure)
        if failure.cause == "device":
            run_folder.record_faulty_machine(place.out_dir, ray.get_runtime_context().get_node_id())
        if failure.cause in ("bug", "device") or isinstance(error, ImportError):
            run_folder.write_text(place.out_dir / "traceback.txt", masked(traceback.format_exc()))
        if distributed:
            raise
    finally:  # here the error is gone, and with it the frames that held the run's tensors
        with contextlib.suppress(RuntimeError):  # on a GPU that has failed every call does
            release_memory()
