"""One Tune trial: a run or a cohort. Runs of one worker train in the trial's process, those of a cohort side by side; a
run of several workers trains in the process's group of workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from ray import train, tune

from orchestrator.running.group_size import WORKERS
from orchestrator.running.growth import first_size
from orchestrator.running.machines.avoided import machines_for
from orchestrator.running.machines.leaving import leaves
from orchestrator.running.machines.this_machine import check_here, gpu_failed
from orchestrator.running.ray_failures import of_ray
from orchestrator.running.retries import Attempts, remember_shortage, side_by_side
from orchestrator.running.worker_group import held_size, train_in_group
from orchestrator.store.objects.uploads import fetch_failure, upload_now, uploading
from trainer.config import parse
from trainer.files import run_folder
from trainer.files.failure import SILENT, Failure
from trainer.worker import train_workers

DRIVER_MEMORY = 128 * 1024**2
"""Memory in bytes that the trial of a multi-worker run reserves: it must reserve something, but no CPU."""


def trial(config: dict[str, Any]) -> None:
    """Tune's trainable. `config["jobs"]`: for each run the settings for `train_workers`, and for retries;
    `config["most"]`: the most runs that train side by side, the others follow.

    Failed attempts are retried here; a run's final failure is written to its folder. Tune only sees the death of this
    process, which a failed GPU causes too and a machine that is about to be taken away, and a full disk.
    """
    for job in config["jobs"]:  # none where all ended before their process died
        check_here(job)
    alone = [job for job in config["jobs"] if job["workers"] == 1]  # a group's files lie where its workers are
    with uploading(alone):
        _train(config)


def _train(config: dict[str, Any]) -> None:
    left = []
    for job in config["jobs"]:
        out = Path(job["place"]["out_dir"])
        run_folder.clear_failure(out)
        if len(config["jobs"]) > 1:  # also for those that train later: they were asked to end at an earlier rung
            run_folder.workers_begin(out)
        if job["refused"]:
            run_folder.write_failure(out, *Failure(**job["refused"]))
        else:
            left.append(Attempts(job))
    while left:
        training = side_by_side(left, config["most"])
        tried = [_with_micro_batch(each) for each in training]
        failures = attempt(tried)
        for each, job in zip(training, tried, strict=True):
            each.workers, each.used = job["workers"], job["place"]["micro_batch"]
        if training[0].job["workers"] == 1:
            devices = [failure for failure in failures.values() if failure.cause == "device"]
            for failure in devices[:1]:  # one fault ends all runs of this process, and counts once
                gpu_failed(training[0].job["launch"], failure)
            if {failure.cause for failure in failures.values()} & {"device", "preempted"}:
                # this process's GPU or machine is lost to every later run; RunCallbacks reads the cause from the folder
                upload_now(tried)
                os._exit(1)
        again = [each for each in training if _is_retried(each, failures.get(each.run_id), len(training))]
        left = [each for each in left if each in again or each not in training]
        if left and len(training) == 1 and not again:  # of runs side by side each reports its end
            tune.report({"run_id": training[0].run_id, "ended": True})


def _with_micro_batch(attempts: Attempts) -> dict[str, Any]:
    """The settings of a run whose attempt begins."""
    return {**attempts.job, "place": {**attempts.job["place"], "micro_batch": attempts.begin()}}


def _is_retried(attempts: Attempts, failure: Failure | None, beside: int) -> bool:
    """Whether a run that has been tried is tried again. Its final failure is written to its folder."""
    if failure is None:
        return False
    if failure.cause == "machine":  # the next group is on others
        return True
    if failure.cause == "memory" and beside > 1:  # the cohort's memory: fewer runs train beside this one
        remember_shortage(attempts.job, beside)
        return True
    if attempts.record_retry(failure):
        return True
    run_folder.clear_failure(attempts.out)
    run_folder.write_failure(attempts.out, *attempts.explained(failure))
    return False


def attempt(jobs: Sequence[dict[str, Any]]) -> dict[str, Failure]:
    """Train runs side by side once; returns the failures by run id."""
    for job in jobs:
        run_folder.clear_failure(Path(job["place"]["out_dir"]))
    seen = None
    if jobs[0]["workers"] == 1:
        # after a failed allocation oneDNN refuses smaller ones in the same thread too: each attempt has its own
        with ThreadPoolExecutor(1) as thread:
            thread.submit(train_workers, jobs, None, leaves).result()
    else:
        (job,) = jobs
        seen = _group(job)
        while seen is not None and seen.cause == "waiting":  # its place was given back: ask for it again
            seen = _group(job, below=job["workers"])
    found = {}
    for job in jobs:
        if seen is not None:
            fetch_failure(job)
        heard = run_folder.read_failure(Path(job["place"]["out_dir"]))
        # a worker's own failure takes precedence over Ray's error, unless it only lost another worker: then it may say
        # which, where Ray knows no more than that
        if heard is not None and (
            heard["cause"] != "lost" or (SILENT in heard["reason"] and (seen is None or seen.cause == "lost"))
        ):
            found[job["run_id"]] = Failure(**heard)
        elif seen is not None:
            found[job["run_id"]] = seen
    return found


def _group(job: dict[str, Any], below: int | None = None) -> Failure | None:
    """Train in a group of workers, and after growth in larger ones; returns what Ray saw fail. The number of workers
    and their micro-batch are written into `job`. `below`: a number that had no room. Raises where the disk is full."""
    optim = parse(job["config"]).optim
    machines = machines_for(job)

    def report(metrics: dict[str, Any]) -> None:
        tune.report({**metrics, WORKERS: job["workers"]})

    try:
        size: int | None = held_size(job, machines) or first_size(job, machines, below)
        while size is not None:
            run_folder.wait_for_workers(Path(job["place"]["out_dir"]))
            job["workers"] = size
            job["place"]["micro_batch"] = optim.fitting_micro_batch(size, job["place"]["micro_batch"])
            size = train_in_group(job, machines, report)
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
    label selector of those that may be taken (`machines_for`)."""
    bundle = resources if workers == 1 else {"memory": DRIVER_MEMORY}
    return tune.PlacementGroupFactory([bundle], bundle_label_selector=[machines or {}])
