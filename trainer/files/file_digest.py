"""The sha256 of a checkpoint's content, read once in a process while its files stay as they are."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from trainer.config import UserError
from trainer.files.weight_files import weight_files


def file_digest(path: Path) -> str:
    """The sha256 of a file's content; of several shards, that of their names and sha256s.

    Raises UserError when it is missing or cannot be read.
    """
    try:
        files = weight_files(path)
        digests = [_digest(file) for file in files]
    except OSError as error:
        raise UserError(f"cannot read the weights {path}: {error.strerror}") from None
    if len(files) == 1:
        return digests[0]
    lines = [f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest(path: Path) -> str:
    state = path.stat()
    return _content(path.absolute(), state.st_size, state.st_mtime_ns)


@functools.cache
def _content(path: Path, size: int, changed_ns: int) -> str:
    """Read once in a process while its size and time stay: a study asks about the same teacher for each of its runs."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
