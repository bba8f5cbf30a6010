"""StoreFull: a full disk pauses the whole study, with a message."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from trainer.files.failure import Failure, cause_of, chain, failure_of


class StoreFull(BaseException):
    """No disk space is left: the study pauses with a one-line message and exit code 3.

    Not an Exception: Tune would treat it as the failure of one trial and go on with the next.
    """


@contextlib.contextmanager
def pausing(root: Path) -> Iterator[None]:
    """Turn errors of a full disk inside the block into StoreFull. `root` is the store."""
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
    """The StoreFull of a failed write. It names the path, and the free space of the store or of the other path."""
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
