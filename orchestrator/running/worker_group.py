"""WorkerGroup: the Ray Train workers that a trial's process holds. They train one run after another.

Starting a group takes longer than a short run: a controller and workers are started, import torch, and find each other.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import ray
from ray import train
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.running.exchange import Exchange
from orchestrator.running.growth import Growth
from orchestrator.running.machines.leaving import leaves
from orchestrator.running.machines.this_machine import check_here, gpu_failed
from orchestrator.running.ray_session import PLACE_S, START_TIMEOUT
from orchestrator.store.objects.uploads import uploading
from trainer.files.failure import failure_of
from trainer.parallel import barrier
from trainer.worker import train_worker

IDLE_S = 30.0
"""A group without a run ends after so many seconds."""
LOOK_S = 0.5
"""While a trial waits for a report it looks so often whether its group has failed."""
LARGER_S = 30.0
"""A group that could be smaller waits so long for its places: they may have gone to others, or with their machine."""
SILENT_S = 300
"""So long a worker waits for another in an operation of their process group, in seconds: for a checkpoint, or while
that one compiles or measures. A worker that hangs or is cut off is named then."""
HEALTH = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
_PLACE_S = os.environ.get(START_TIMEOUT, str(PLACE_S))
"""Any other group, in seconds."""


class StoppedRun(BaseException):
    """Ends a run in a worker whose trial was stopped; no Exception, so that it does not count as a failure."""


class WorkerGroup:
    """A group of workers of one shape. `job`: the settings of its first run (`Job.settings`)."""

    def __init__(self, job: dict[str, Any], machines: dict[str, str]) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.shape = _shape(job, machines)
        self._exchange = (
            ray.remote(Exchange).options(num_cpus=0, scheduling_strategy=here).remote(job["workers"], IDLE_S)
        )
        self._over: Future[None] = Future()
        # a daemon: the process must be able to end while its workers wait
        threading.Thread(target=self._host, args=(job, machines), daemon=True).start()

    def train(self, job: dict[str, Any], report: Callable[[dict[str, Any]], None], growth: Growth) -> bool:
        """Train one run; every epoch is passed to `report`, and its exception stops the run in all workers. So does an
        epoch after which growth is due.

        False where the group had ended before. Raises what Ray Train raises where the group fails.
        """
        if self._over.done() or not self._ask(self._exchange.give.remote(job)):
            return False
        while (metrics := self._ask(self._exchange.heard.remote(), growth.look)) is not None:
            try:
                report(metrics)
            except BaseException:
                ray.get(self._exchange.stop.remote())
                raise
            if growth.is_due(metrics):
                ray.get(self._exchange.stop.remote())
                break
        return True

    @property
    def is_over(self) -> bool:
        """Whether the group has ended or failed."""
        return self._over.done()

    def end(self) -> None:
        """End a group that trains no run, or has failed, and wait until its workers have left their run's folder."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._exchange.end.remote())
        with contextlib.suppress(Exception):  # why it has failed was raised before
            self._over.result()

    def _ask(self, answer: Any, meanwhile: Callable[[], None] = lambda: None) -> Any:
        """The answer of the exchange, which may be long in coming. Raises as `train` where the group fails first."""
        while not ray.wait([answer], timeout=LOOK_S)[0]:
            meanwhile()
            if self._over.done():
                self._over.result()
                raise train.TrainingFailedError("the workers ended before their run")
        return ray.get(answer)

    def _host(self, job: dict[str, Any], machines: dict[str, str]) -> None:
        try:
            _start(job, machines, self._exchange)
        except BaseException as error:
            self._over.set_exception(error)
        else:
            self._over.set_result(None)


_held: WorkerGroup | None = None
"""The group of this process."""


def train_in_group(
    job: dict[str, Any], machines: dict[str, str], report: Callable[[dict[str, Any]], None]
) -> int | None:
    """Train a run in this process's group, or in a new one where that has ended, failed or has another shape.

    `machines`: Ray's label selector of the machines that may be taken. Returns the number of workers with which the run
    is to go on from its last checkpoint, None where it has ended. Raises as `WorkerGroup.train`.
    """
    global _held
    if _held is not None and _held.shape != _shape(job, machines):
        _end_group()
    growth = Growth(job, machines)
    try:
        while _held is None or not _held.train(job, report, growth):
            _end_group()
            _held = WorkerGroup(job, machines)
        if growth.size is not None:
            _end_group()
    except Exception:
        _end_group()
        raise
    finally:
        growth.give_back()  # now the larger group may have these places
    return growth.size


def _end_group() -> None:
    global _held
    if _held is not None:
        _held.end()
        _held = None


def held_size(job: dict[str, Any], machines: dict[str, str]) -> int | None:
    """The number of workers of this process's group, where the run can train in it as it is."""
    if _held is None or _held.is_over:
        return None
    return next(
        (size for size in job["group_sizes"] if _held.shape == _shape({**job, "workers": size}, machines)), None
    )


def _shape(job: dict[str, Any], machines: dict[str, str]) -> tuple[Any, ...]:
    """What runs must have in common to train in one group."""
    return job["workers"], job["resources"], machines


def _start(job: dict[str, Any], machines: dict[str, str], exchange: Any) -> None:
    """Start the workers of a group; returns when they have ended."""
    from ray.train.torch import TorchConfig, TorchTrainer

    # Ray Train's controller takes these from this process. It ends a worker that hangs after the others have named it.
    os.environ.setdefault(HEALTH, str(SILENT_S + 60))
    os.environ[START_TIMEOUT] = str(LARGER_S) if job["workers"] > job["group_sizes"][0] else _PLACE_S
    TorchTrainer(
        serve,
        train_loop_config={"exchange": exchange},
        torch_config=TorchConfig(timeout_s=SILENT_S),
        scaling_config=train.ScalingConfig(
            num_workers=job["workers"],
            use_gpu=bool(job["resources"].get("GPU")),
            resources_per_worker=job["resources"],
            placement_strategy="PACK",
            label_selector=machines,
        ),
        run_config=train.RunConfig(
            name=job["run_id"],
            storage_path=job["ray_dir"],
            failure_config=train.FailureConfig(**_no_retries()),
        ),
    ).fit()


def _no_retries() -> dict[str, int]:
    """`trial` counts retries by cause; Ray Train has one number for all, and from 2.58 on another for preemptions."""
    limits = {"max_failures": 0, "max_preemption_failures": 0, "controller_failure_limit": 1}
    known = inspect.signature(train.FailureConfig).parameters
    return {name: limit for name, limit in limits.items() if name in known}


def serve(config: dict[str, Any]) -> None:
    """In each worker: train the runs that `config["exchange"]` gives, until no further one will come."""
    exchange, rank, done = config["exchange"], train.get_context().get_world_rank(), 0

    def send(metrics: dict[str, Any]) -> None:
        if not ray.get(exchange.report.remote(rank, metrics)):
            raise StoppedRun

    while (given := ray.get(exchange.next.remote(rank, done))) is not None:
        check_here(given.job)
        try:
            with contextlib.suppress(StoppedRun), uploading([given.job], uploads=rank == 0):
                _train(given.job, send)
        except Exception as error:
            if failure_of(error).cause == "preempted":
                barrier()  # Ray ends all workers once one has raised it, also while another uploads
            raise
        done = given.number


def _train(job: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    try:
        train_worker(job, send, leaves)
    except Exception as error:
        gpu_failed(job["launch"], failure_of(error))
        raise
