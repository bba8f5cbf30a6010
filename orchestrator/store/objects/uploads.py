"""Uploads: while a process trains runs of a store at an address, their checkpoints go there in the background."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.store.objects import run_files
from orchestrator.store.objects.objects import DamagedError
from orchestrator.store.objects.working_copy import WorkingCopy, opened, working_copy
from trainer.config import UserError, message_of
from trainer.files.run_folder import FAILURE, FAULTY_MACHINES, LAST, clear_failure, read_failure

LOOK_S = 1.0
UPLOAD_S = 30.0
"""A run is uploaded at most so often while it trains, and at its end: what a lost machine has trained since is repeated
elsewhere."""
LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def uploading(jobs: Sequence[Mapping[str, Any]], *, uploads: bool = True) -> Iterator[None]:
    """Fetch the folders of runs that are about to train here, and of their teachers; upload them while they train and
    at the end. `jobs` are their settings (`Job.settings`). Of a store in a folder nothing is done.

    Several workers of a run fetch it; the one that writes its files `uploads`.
    """
    copy = copy_of(jobs[0]["store"]) if jobs else None
    if copy is None:
        yield
        return
    run_ids = [job["run_id"] for job in jobs]
    for run_id in run_ids:
        copy.fetch_run(run_id)
    for teacher in {Path(job["place"]["teacher"]) for job in jobs if job["place"]["teacher"]}:
        if not teacher.exists():
            copy.fetch_run(teacher.parent.name)
    if not uploads:
        yield
        return
    for run_id in run_ids:  # nobody is to take an earlier attempt's failure for this one's
        if read_failure(out := copy.root / "runs" / run_id) is not None:
            clear_failure(out)
            run_files.upload(copy.objects, copy.root, run_id)
    over = threading.Event()
    thread = threading.Thread(target=_upload_changes, args=(copy, run_ids, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for run_id in run_ids:
            run_files.upload(copy.objects, copy.root, run_id)


def upload_now(jobs: Sequence[Mapping[str, Any]]) -> None:
    """Upload runs whose process is about to end itself, so that what they record of it is read elsewhere."""
    for job in jobs:
        if (copy := copy_of(job["store"])) is not None:
            with contextlib.suppress(UserError):
                run_files.upload(copy.objects, copy.root, job["run_id"])


def fetch_failure(job: Mapping[str, Any]) -> None:
    """Bring here what the workers of a run have recorded of a failure on another machine. Of a store in a folder it is
    there; where the address does not answer, Ray's own word is left."""
    if (copy := copy_of(job["store"])) is not None:
        with contextlib.suppress(UserError, DamagedError):
            run_files.fetch_small(copy.objects, copy.root, job["run_id"], (FAILURE, FAULTY_MACHINES))


def copy_of(store: Mapping[str, str]) -> WorkingCopy | None:
    """The working copy that settings name, on whatever machine; None of a store in a folder."""
    if not store.get("address"):
        return None
    return working_copy(opened(store["address"], Path(store["root"])))


def _upload_changes(copy: WorkingCopy, run_ids: Sequence[str], over: threading.Event) -> None:
    uploaded_s = dict.fromkeys(run_ids, time.monotonic())
    seen = {run_id: _saved(copy, run_id) for run_id in run_ids}
    while not over.wait(LOOK_S):
        for run_id in run_ids:
            saved = _saved(copy, run_id)
            if saved == seen[run_id] or time.monotonic() - uploaded_s[run_id] < UPLOAD_S:
                continue
            try:
                run_files.upload(copy.objects, copy.root, run_id)
                seen[run_id] = saved
            except (UserError, OSError) as error:  # tried again: the run trains on
                LOG.warning("run %s: %s", run_id, message_of(error))
            uploaded_s[run_id] = time.monotonic()


def _saved(copy: WorkingCopy, run_id: str) -> int:
    """When the run's last checkpoint was saved; 0 before the first."""
    try:
        return (copy.root / "runs" / run_id / LAST).stat().st_mtime_ns
    except FileNotFoundError:
        return 0
