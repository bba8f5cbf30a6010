"""The failure of a trial, from the errors that Ray raises."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

from trainer.files.failure import Failure, failure_of

_NO_IMPORT = r"failed to import on the worker\..*"
"""What Ray says of a function or class that a worker could not unpickle, with the worker's traceback."""


def of_trial(trial: Any) -> Failure:
    """Why a Tune trial ended. Tune stores the text of every error, and the error itself only for some classes."""
    text = (
        Path(trial.error_file).read_text(encoding="utf-8", errors="replace").rpartition("Failure # ")[2]
        if trial.error_file
        else ""
    )
    error = _own_error(Path(trial.pickled_error_file or ""))
    if error is not None and str(error) in text:  # otherwise it belongs to an earlier attempt
        return of_ray(error)
    return of_ray(RuntimeError(text))


def _own_error(pickled: Path) -> BaseException | None:
    """The error that Tune has written in this process's session; None where another user wrote the file, as all may in
    Ray's temporary folder, and unpickling would run what they wrote."""
    if not pickled.is_file():
        return None
    with pickled.open("rb") as file:
        return pickle.load(file) if os.fstat(file.fileno()).st_uid == os.geteuid() else None


def of_ray(error: BaseException) -> Failure:
    """Why a trial ended, from Ray's error. A full disk or a dead worker takes precedence over the errors of others."""
    order = ("disk", "machine", "memory", "device", "preempted", "lost")
    if (found := re.search(_NO_IMPORT, str(error), re.DOTALL)) is not None:
        lines = [line.strip() for line in found[0].splitlines() if line.strip()]
        files = [line for line in lines if line.startswith("File ")]
        return Failure(
            "user", f"a worker could not import the program: {lines[-1]} ({files[-1] if files else 'no file'})"
        )
    seen = [failure_of(inner) for inner in _inside(error)]
    return min(seen, key=lambda failure: order.index(failure.cause) if failure.cause in order else len(order))


def _inside(error: BaseException) -> list[BaseException]:
    """The errors that a Ray error wraps: of a task, a worker group or its controller; else the error itself."""
    if workers := getattr(error, "worker_failures", None):
        return [link for inner in workers.values() for link in _inside(inner)]
    for name in ("controller_failure", "health_check_failure", "_base_exc", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException) and inner is not error:
            return _inside(inner)
    return [error]
