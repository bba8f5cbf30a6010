"""A full disk pauses the whole study: StoreFull, and its message."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from trainer.files.failure import Failure, cause_of, chain, failure_of


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
