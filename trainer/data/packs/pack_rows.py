"""The rows of a packed file: opened, and checked cheaply (is_whole) or in full (is_damaged)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

SOURCE_CHECK, PIXEL_CHECK = "source_check", "pixel_check"
"""Columns with the CRC-32 of a row's short columns, and of its pixels. Files of earlier versions lack both."""

PICTURE = "picture"
"""Column with the digest of a row's decoded image. Files of earlier versions lack it."""

_SHORT = "stem", "source", "counts", PICTURE
_PIXELS = "image", "label", "native"
_DAMAGE = (pa.ArrowException, OSError, ValueError, LookupError)
"""What reading a damaged file raises."""


def checksum(parts: Sequence[bytes | memoryview | None]) -> int:
    """CRC-32 of bytes one after the other; None counts as no bytes."""
    found = 0
    for part in parts:
        found = zlib.crc32(part, found) if part is not None else found
    return found


def rows_of(path: Path) -> list[pa.RecordBatch]:
    """The record batches of a file, one for each pair. The file is mapped, and pixels are read on access."""
    batches = pa.ipc.open_file(pa.memory_map(str(path)))
    return [batches.get_batch(i) for i in range(batches.num_record_batches)]


def bytes_of(column: pa.Array) -> np.ndarray:
    """A view of the bytes of a binary column that has one value."""
    return np.frombuffer(column[0].as_buffer(), np.uint8)


def is_whole(path: Path, stems: Sequence[str]) -> bool:
    """Whether a packed file is there, can be opened, and has a row for each of `stems`. No pixel is read."""
    try:
        found = path.stat()
        return _is_whole(path, (found.st_ino, found.st_size, found.st_mtime_ns), tuple(stems))
    except _DAMAGE:
        return False


def is_damaged(path: Path) -> bool:
    """Whether a packed file cannot be opened, or any of its bytes that has a checksum was changed."""
    try:
        return not all(
            _agrees(row, SOURCE_CHECK, _SHORT) and _agrees(row, PIXEL_CHECK, _PIXELS) for row in rows_of(path)
        )
    except _DAMAGE:
        return True


@lru_cache(maxsize=1024)
def _is_whole(path: Path, state: tuple[int, int, int], stems: tuple[str, ...]) -> bool:
    """`state` is inode, size and time of the file: the answer holds until one of them changes."""
    rows = rows_of(path)
    for row, stem in zip(rows, stems, strict=True):
        row.validate()
        if row.num_rows != 1 or ("stem" in row.schema.names and row["stem"][0].as_py() != stem):
            return False
        if not _agrees(row, SOURCE_CHECK, _SHORT):
            return False
    return True


def _agrees(row: pa.RecordBatch, check: str, columns: Sequence[str]) -> bool:
    """Whether the columns that a row has of `columns` have its checksum, where it has one."""
    names = row.schema.names
    if check not in names:
        return True
    values = [row[name][0].as_buffer() for name in columns if name in names and row[name][0].is_valid]
    return bool(row[check][0].as_py() == checksum([memoryview(value) for value in values]))
