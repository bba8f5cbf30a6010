"""replacing(): write a file whole or not at all; naming(): say which failed; whole_json(): read one. Without torch."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path in the same folder; the file written there is flushed to disk and renamed to `path`.

    A process that is killed at any moment leaves the old file or the new one. An exception removes the temporary file
    and leaves the old one. The old file is renamed to `previous` first, where that is given: a kill between the two
    renames then leaves the old file under that name only.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an error of the system that names no file, as that of a write to a full disk: which disk is it?"""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def whole_json(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file; None where there is no file, or what is there is damaged."""
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
