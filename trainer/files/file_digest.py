"""The sha256 of a file's content, read once in a process while the file stays as it is."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from trainer.config import UserError


def file_digest(path: Path) -> str:
    """The sha256 of a file's content. Raises UserError when it is missing."""
    try:
        state = path.stat()
        return _content(path.absolute(), state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise UserError(f"cannot read the weights {path}: {error.strerror}") from None


@functools.cache
def _content(path: Path, size: int, changed_ns: int) -> str:
    """Read once in a process while its size and time stay: a study asks about the same teacher for each of its runs."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
