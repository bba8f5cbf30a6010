"""Why an attempt at a run ended, in one word: each cause has its own remedy, and its own budget of further attempts."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from trainer.config import NumericalError, UserError

CAUSES = ("user", "nan", "memory", "disk", "lost", "preempted", "bug", "teacher")
"""A wrong config or file; a loss that is not finite; no memory left; no disk left; a process or a machine that went; a
machine that a cloud announced to take back; anything else that code raised; and, of a pupil, a teacher that failed."""

_CLASSES = {
    # torch's, of a GPU; Ray's, of a process that its memory monitor ended
    "OutOfMemoryError": "memory",
    "MemoryError": "memory",
    "OutOfDiskError": "disk",
    # Ray's, of a process, its machine, or the group of a run
    "RayActorError": "lost",
    "WorkerCrashedError": "lost",
    "NodeDiedError": "lost",
    "LocalRayletDiedError": "lost",
    "PreemptionError": "lost",
    "WorkerHealthCheckFailedError": "lost",
    "WorkerHealthCheckTimeoutError": "lost",
    "WorkerGroupStartupFailedError": "lost",
    "WorkerGroupStartupTimeoutError": "lost",
    "CollectiveTimeoutError": "lost",
    # torch.distributed's, in a worker that survived another
    "DistBackendError": "lost",
    "DistNetworkError": "lost",
    "DistStoreError": "lost",
}
"""By the name of a class, for this file imports neither torch nor Ray."""

_MESSAGES = {
    # the last is oneDNN's, whose scratch space did not fit
    "memory": r"(can't|Cannot) allocate memory|(not enough|out of|running low on) memory|_ALLOC_FAILED|"
    "could not create a primitive",
    "disk": r"No space left on device|Disk quota exceeded",
    "lost": r"Connection (closed|reset) by peer",  # gloo raises a bare RuntimeError
}
"""What the messages of errors without a class of their own say."""

_PACKAGE = Path(__file__).parents[1]


class Failure(NamedTuple):
    """Why an attempt ended: one of CAUSES, and one line for people."""

    cause: str
    reason: str


def cause_of(error: BaseException) -> str:
    """The cause of an error, or of what it was raised from: torch.save hides a full disk behind a RuntimeError."""
    return next((cause for link in chain(error) if (cause := _own_cause(link))), "bug")


def failure_of(error: BaseException) -> Failure:
    """Cause and reason of an error; where a bug is, its reason says."""
    cause = cause_of(error)
    if cause in ("user", "nan"):
        return Failure(cause, str(error))
    if cause in ("lost", "preempted"):
        return Failure(cause, _death(error))
    if cause in ("memory", "disk"):
        error = next(link for link in chain(error) if _own_cause(link) == cause)
    said = " ".join(f"{type(error).__name__}: {error}".split())
    if cause == "memory":
        asked = re.search(r"[Tt]ried to allocate (\d+ bytes|[\d.]+ \w+)", said)
        return Failure(cause, f"no memory left for {asked[1]}" if asked else f"no memory left ({said[:200]})")
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if _PACKAGE in Path(frame.filename).parents]
    if cause != "bug" or not ours:
        return Failure(cause, said)
    return Failure(cause, f"{said} ({Path(ours[-1].filename).relative_to(_PACKAGE.parent)}:{ours[-1].lineno})")


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from, as a traceback shows them."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _death(error: BaseException) -> str:
    """Ray tells a death at length, with all that may have been its reason; what is known of it is enough."""
    exit_ = re.search(r"Worker exit type: (\w+)", str(error))
    return f"a process of the run or its machine went ({exit_[1] if exit_ else type(error).__name__})"


def _own_cause(error: BaseException) -> str | None:
    if isinstance(error, UserError):
        return "user"
    if isinstance(error, NumericalError):
        return "nan"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk"
    if getattr(error, "preempted", False):  # Ray's word, of a process that died with its machine
        return "preempted"
    for kind in type(error).__mro__:
        if kind.__name__ in _CLASSES:
            return _CLASSES[kind.__name__]
    return next((cause for cause, words in _MESSAGES.items() if re.search(words, str(error))), None)
