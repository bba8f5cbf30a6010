"""Failures as the driver meets them: what Ray raises, and a full disk, which pauses the whole study."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.failure import Failure, cause_of, chain, failure_of


class StoreFull(BaseException):
    """No disk is left: the study pauses, in one line. Exit code 3.

    Not an Exception: Tune would take it for the failure of the trial that it was about, and go on with the next.
    """


@contextlib.contextmanager
def pausing(root: Path) -> Iterator[None]:
    """What fails inside for want of disk raises StoreFull. `root` is the store."""
    try:
        yield
    except StoreFull:
        raise
    except BaseException as error:
        first = next((link for link in chain(error) if isinstance(link, StoreFull)), None)
        if first is None and cause_of(error) != "disk":
            raise
        raise first or full(root, failure_of(error)) from None


def full(root: Path, failure: Failure) -> StoreFull:
    """The pause, in words: what was to be written, and what is left there: in the store, unless another is named."""
    named = re.search(r"\[Errno \d+\] [^:]+: '(/[^']+)'", failure.reason)
    elsewhere = Path(named[1]) if named and not Path(named[1]).is_relative_to(root) else None
    mount = (elsewhere or root).resolve()
    while not os.path.ismount(mount):
        mount = mount.parent
    free = shutil.disk_usage(mount).free / 2**20
    return StoreFull(
        f"{failure.reason}; {elsewhere or f'the store {root}'} is on {mount}, which has {free:.1f} MiB left; "
        "make room and run the same command again to go on"
    )


def of_trial(trial: Any) -> Failure:
    """Why Tune's trial ended. Tune keeps an error's text, and the error itself only of some kinds."""
    text = Path(trial.error_file).read_text().rpartition("Failure # ")[2] if trial.error_file else ""
    pickled = Path(trial.pickled_error_file or "")
    if pickled.is_file():
        error = pickle.loads(pickled.read_bytes())
        if str(error) in text:  # else it is of an earlier attempt
            return of_ray(error)
    return of_ray(RuntimeError(text))


def of_ray(error: BaseException) -> Failure:
    """Why a trial ended, from what Ray raised: a full disk and a death say more than what other workers then saw."""
    order = ("disk", "memory", "preempted", "lost")
    seen = [failure_of(inner) for inner in _inside(error)]
    return min(seen, key=lambda failure: order.index(failure.cause) if failure.cause in order else len(order))


def _inside(error: BaseException) -> list[BaseException]:
    """What a task, a group of workers or its controller failed with; the error itself where it wraps nothing."""
    if workers := getattr(error, "worker_failures", None):
        return [link for inner in workers.values() for link in _inside(inner)]
    for name in ("controller_failure", "health_check_failure", "_base_exc", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException) and inner is not error:
            return _inside(inner)
    return [error]
