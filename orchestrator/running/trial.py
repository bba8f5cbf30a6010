"""One Tune trial. A run of one worker trains in the trial's process; a run of several in its group of workers."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from ray import train, tune

from orchestrator.running.ray_failures import of_ray
from orchestrator.running.retries import Attempts
from orchestrator.running.shared_store import must_see
from orchestrator.running.worker_group import train_in_group
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
    run_folder.wait_for_workers(Path(job["place"]["out_dir"]))
    try:
        train_in_group(job, other_machines(job), tune.report)
    except (train.TrainingFailedError, ray.exceptions.RayError) as error:
        seen = of_ray(error)
        if seen.cause == "disk":
            raise
        return seen
    return None


def placement_group(
    workers: int, resources: dict[str, float], machines: dict[str, str] | None = None
) -> tune.PlacementGroupFactory:
    """The resources of a trial: those of its only worker, or with several workers a little memory. `machines` are the
    labels of those that may be taken (`other_machines`)."""
    bundle = resources if workers == 1 else {"memory": DRIVER_MEMORY}
    return tune.PlacementGroupFactory([bundle], bundle_label_selector=[machines or {}])


def other_machines(job: dict[str, Any]) -> dict[str, str]:
    """Ray's label selector for machines on which no GPU has failed under this run; empty, which takes all, where none
    has failed or the others have no room for the run."""
    faulty = run_folder.faulty_machines(Path(job["place"]["out_dir"]))
    if not faulty:
        return {}
    need = {name: amount for name, amount in job["resources"].items() if amount}
    others = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in faulty]
    room = sum(min(int(node.get(name, 0) / amount) for name, amount in need.items()) for node in others)
    return {"ray.io/node-id": f"!in({','.join(faulty)})"} if room >= job["workers"] else {}
