"""What Ray raises, unwrapped to what happened."""

import errno
import os
import pickle
from types import SimpleNamespace

import pytest
import ray.cloudpickle
import ray.exceptions
from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    InsufficientClusterResourcesError,
    UserExceptionWithTraceback,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)

from orchestrator.running.ray_failures import of_ray, of_trial
from trainer.config import UserError
from trainer.files.failure import Failure

DIED = ray.exceptions.ActorDiedError()
FULL = OSError(errno.ENOSPC, "No space left on device", "/store/last.pt")
WENT = "a process of the run or its machine died (ActorDiedError)"
DRAINED = NodeDeathInfo(reason=NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED)
ECC = RuntimeError("CUDA error: uncorrectable ECC error encountered")
NOT_IMPORTED = """The actor with name ImplicitFunc failed to import on the worker. This may be because needed library
dependencies are not installed in the worker environment:

ray::ImplicitFunc.__init__() (pid=1)
  File "/home/me/trainer.py", line 1, in <module>
    import nothing
ModuleNotFoundError: No module named 'nothing'"""
WHY = (
    "a worker could not import the program: ModuleNotFoundError: No module named 'nothing' "
    '(File "/home/me/trainer.py", line 1, in <module>)'
)
TAKEN = ray.exceptions.ActorDiedError(cause=ActorDiedErrorContext(actor_id=bytes(16), node_death_info=DRAINED))


def task(cause):
    """As a trial's error reaches the driver."""
    return ray.exceptions.RayTaskError("train", "Traceback ...", cause).as_instanceof_cause()


def group(*workers):
    """As a group of workers fails."""
    return WorkerGroupError("failed", dict(enumerate(workers)))


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (DIED, Failure("lost", WENT)),
        (TAKEN, Failure("preempted", WENT)),
        (task(TAKEN), "preempted"),
        (ray.exceptions.OutOfMemoryError("the node is running low on memory"), "memory"),
        (task(UserError("store /s must be one folder")), Failure("user", "store /s must be one folder")),
        (task(FULL), Failure("disk", "OSError: [Errno 28] No space left on device: '/store/last.pt'")),
        (task(task(ZeroDivisionError("by zero"))), "bug"),
        (group(WorkerHealthCheckFailedError("failed", DIED)), Failure("lost", WENT)),
        (group(UserExceptionWithTraceback(FULL, "Traceback ...")), "disk"),
        (ControllerError(WorkerGroupStartupTimeoutError(2)), "waiting"),
        (ControllerError(InsufficientClusterResourcesError("needs\n4 CPUs")), Failure("user", "needs 4 CPUs")),
        (
            ray.exceptions.ActorDiedError(cause=ray.exceptions.RayTaskError("t", NOT_IMPORTED, None)),
            Failure("user", WHY),
        ),
        (RuntimeError(NOT_IMPORTED), Failure("user", WHY)),
        (task(ImportError("no module x")), Failure("user", "ImportError: no module x")),
        (
            group(WorkerHealthCheckFailedError("failed", DIED), UserExceptionWithTraceback(ECC, "Traceback ...")),
            "device",
        ),
    ],
)
def test_what_ray_raises_is_unwrapped(error, failure):
    found = of_ray(error)
    assert found == failure if isinstance(failure, Failure) else found.cause == failure


def test_a_death_says_more_than_what_the_other_workers_saw_of_it():
    collateral = UserExceptionWithTraceback(ValueError("the others lost it"), "Traceback ...")
    died = WorkerHealthCheckFailedError("failed", DIED)
    assert of_ray(group(collateral, died)).cause == "lost"
    evicted = WorkerHealthCheckFailedError("failed", ray.exceptions.OutOfMemoryError("low on memory"))
    assert of_ray(group(died, evicted)).cause == "memory"
    assert of_ray(group(died, TAKEN)).cause == "preempted"


def test_an_error_that_another_user_has_pickled_is_not_unpickled(tmp_path, monkeypatch):
    text, pickled = tmp_path / "error.txt", tmp_path / "error.pkl"
    text.write_text(f"Failure # 1 (occurred at noon)\n{DIED}\n")
    pickled.write_bytes(ray.cloudpickle.dumps(DIED))
    trial = SimpleNamespace(error_file=str(text), pickled_error_file=str(pickled))
    assert of_trial(trial).cause == "lost"
    monkeypatch.setattr(os, "geteuid", lambda: pickled.stat().st_uid + 1)
    monkeypatch.setattr(pickle, "load", lambda file: pytest.fail("unpickled"))
    assert of_trial(trial).cause == "bug"
