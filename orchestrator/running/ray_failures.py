"""Failures as the driver meets them: what Ray raises, and a full disk, which pauses the whole study."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from trainer.files.failure import Failure, failure_of


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
