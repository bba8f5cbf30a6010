"""Classify why an attempt at a run ended: each cause has its own remedy and its own number of retries."""

from __future__ import annotations

import errno
import re
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from trainer.config import NumericalError, UnreachableError, UserError, message_of
from trainer.config.blame import blamed

CAUSES = ("user", "nan", "memory", "disk", "device", "lost", "preempted", "waiting", "machine", "bug", "teacher")
"""In this order: a wrong config, file, plugin or installation; a loss that is NaN or infinite; out of memory; disk
full; a GPU that failed; a process or machine that died; a machine that the cloud took back with notice; workers that
have no place yet, and a machine without the store or the data, both of which end no run; any other exception; and, for
a student whose teacher the study trains, a failed teacher."""

_CLASSES = {
    # torch's, for a GPU; Ray's, for a process that its memory monitor killed
    "OutOfMemoryError": "memory",
    "MemoryError": "memory",
    "OutOfDiskError": "disk",
    # Ray's, for a process, its machine, or the worker group of a run
    "RayActorError": "lost",
    "WorkerCrashedError": "lost",
    "NodeDiedError": "lost",
    "LocalRayletDiedError": "lost",
    "PreemptionError": "preempted",  # Ray Train's
    "PreemptedError": "preempted",  # ours, where the run has seen it coming
    "WorkerHealthCheckFailedError": "lost",
    "WorkerHealthCheckTimeoutError": "lost",
    "WorkerGroupStartupFailedError": "lost",
    "WorkerGroupStartupTimeoutError": "waiting",
    "UnfitMachineError": "machine",
    "InsufficientClusterResourcesError": "user",
    "CollectiveTimeoutError": "lost",
    # torch.distributed's, in a worker whose peer died
    "DistBackendError": "lost",
    "DistNetworkError": "lost",
    "DistStoreError": "lost",
    "LostFolderError": "lost",
    "SilentRankError": "lost",  # trainer.parallel's, which names that peer
}
"""Class name -> cause. Names, because this file must import neither torch nor Ray."""

ASSERT = "device-side assert triggered"
"""CUDA's words where a kernel found an index out of range. The GPU is rarely to blame, but its process cannot go on."""

SILENT = "does not answer"
"""The words of a SilentRankError."""

_DEVICE = "|".join(
    (
        ASSERT,
        # CUDA's descriptions of faults that its programming guide calls sticky: no later call of the process succeeds
        "ECC error|NVLink error|illegal memory access|illegal instruction|misaligned address",
        "invalid program counter|invalid address space|hardware stack error|operation not supported on global/shared",
        "unspecified launch failure|launch timed out",
        "CUDA unknown error|CUDA error: unknown error|CUDA error: initialization error|CUDA driver error: unknown",
        "external device failure|nvlink or a hardware error|uncorrectable RAS error",
        "CUDA error: (contained error|page fault|(warp|lane) .*(address|stack))",
        "context is destroyed|invalid device context|driver shutting down",
        "MPS (client terminated|server|.*connection)",
        # a GPU that is gone or refuses new processes
        "GPU is lost|GPU has fallen off|GPU requires reset|No CUDA GPUs are available|no CUDA-capable device",
        "error: device not found|Unable to determine the device handle|Failed to initialize NVML",
        "NVML: (GPU|Unknown|Driver Not)",
        "CUDA-capable device.* busy or unavailable|system not yet initialized|CUDA driver initialization failed",
        # the libraries' words for the same
        r"CU(DNN|BLAS|SOLVER|SPARSE)_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR|NOT_INITIALIZED)(?!\w*ALLOC)\w*",
        "CURAND_STATUS_(LAUNCH_FAILURE|PREEXISTING_FAILURE|INITIALIZATION_FAILED|INTERNAL_ERROR|NOT_INITIALIZED)",
        "CUFFT_(EXEC_FAILED|INTERNAL_ERROR|SETUP_FAILED)",
    )
)
"""Messages of GPU faults, in any case. Wrong arguments (`invalid argument`, BAD_PARAM) are bugs and are not here."""

_MESSAGES = {
    # a loader's process is killed by SIGBUS where its shared memory is full; the last is oneDNN's, of its workspace
    "memory": r"(can't|Cannot) allocate memory|(not enough|out of|running low on|insufficient)( shared| host)? memory"
    r"|_ALLOC_FAILED|_ALLOCATION_FAILED|INTERNAL_ERROR_\w*ALLOC|CU\w+_STATUS_INSUFFICIENT_RESOURCES|bad[_ ]alloc"
    "|Bus error|could not create a primitive",
    "disk": r"No space left on device|Disk quota exceeded",
    # gloo raises a bare RuntimeError
    "lost": r"Connection (closed|reset) by peer|Timed out waiting \d+ms for (recv|send)",
}
"""Cause -> pattern of the message, for errors of general classes such as RuntimeError."""

_PACKAGE = Path(__file__).parents[1]


class Failure(NamedTuple):
    """Why an attempt ended: `cause` is one of CAUSES, `reason` one line for the user."""

    cause: str
    reason: str


def cause_of(error: BaseException) -> str:
    """The cause of an error or of its __cause__ or __context__: torch.save hides a full disk behind a RuntimeError."""
    if isinstance(error, ImportError):  # the same in every attempt
        return "user"
    found = next((cause for link in chain(error) if (cause := _own_cause(link))), "bug")
    return "user" if found == "bug" and blamed(error) else found


def failure_of(error: BaseException) -> Failure:
    """Cause and reason of an error; the reason of a bug ends with the file and line of this package it came through."""
    cause = cause_of(error)
    if cause == "user" and (said := blamed(error)):
        return Failure(cause, said)
    if cause in ("user", "nan", "machine") and not isinstance(error, ImportError):
        return Failure(cause, message_of(error))
    if cause in ("lost", "preempted"):
        return Failure(cause, _process_death(error))
    if cause in ("memory", "disk", "device"):
        error = next(link for link in chain(error) if _own_cause(link) == cause)
    said = f"{type(error).__name__}: {message_of(error)}"
    if cause == "memory":
        asked = re.search(r"[Tt]ried to allocate (\d+ bytes|[\d.]+ \w+)", said)
        return Failure(cause, f"no memory left for {asked[1]}" if asked else f"no memory left ({said[:200]})")
    if cause == "device":  # CUDA's other lines are advice on debugging
        return Failure(cause, f"the GPU of {socket.gethostname()} failed ({str(error).strip().splitlines()[0][:200]})")
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if _PACKAGE in Path(frame.filename).parents]
    if cause != "bug" or not ours:
        return Failure(cause, said)
    return Failure(cause, f"{said} ({Path(ours[-1].filename).relative_to(_PACKAGE.parent)}:{ours[-1].lineno})")


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes or contexts, as a traceback shows them, each once: `raise from` can close a circle."""
    link: BaseException | None = error
    seen = set[int]()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _process_death(error: BaseException) -> str:
    """One line for a dead process: Ray's message lists every possible reason, and only the exit type is known."""
    if type(error).__name__ in ("SilentRankError", "PreemptedError") or isinstance(error, UnreachableError):
        return message_of(error)
    exit_ = re.search(r"Worker exit type: (\w+)", str(error))
    return f"a process of the run or its machine died ({exit_[1] if exit_ else type(error).__name__})"


def _own_cause(error: BaseException) -> str | None:
    if isinstance(error, UserError):
        return "lost" if isinstance(error, UnreachableError) else "user"
    if isinstance(error, NumericalError):
        return "nan"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk"
    if getattr(error, "preempted", False):  # Ray's attribute of a process that died with a preempted machine
        return "preempted"
    if isinstance(error, Exception) and re.search(_DEVICE, str(error), re.IGNORECASE):
        return "device"
    for kind in type(error).__mro__:
        if kind.__name__ in _CLASSES:
            return _CLASSES[kind.__name__]
    return next((cause for cause, words in _MESSAGES.items() if re.search(words, str(error))), None)
