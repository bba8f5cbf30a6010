"""replacing(): write a file whole or not at all. No torch, so that the orchestrator may use it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path in the same folder; the file written there is flushed to disk and renamed to `path`.

    A process that is killed at any moment leaves the old file or the new one. An exception removes the temporary file
    and leaves the old one. The old file is renamed to `previous` first, where that is given: a kill between the two
    renames then leaves the old file under that name only.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
