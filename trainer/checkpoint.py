"""Checkpoints: written whole or not at all, and read without unpickling objects."""

from __future__ import annotations

import errno
import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from trainer.config import UserError
from trainer.failure import cause_of


class DamagedError(UserError):
    """A file is not, or not any more, what `save` wrote."""


def save(path: Path, state: dict[str, Any], older: Path | None = None) -> None:
    """Write `state` (tensors and plain values) so that a kill at any moment leaves the old file or the new one.

    The old file becomes `older`, where that is given; then a kill may leave the old one under that name alone. Raises
    OSError with the size that was needed where the disk is full, and then leaves all as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except Exception as error:
        partial.unlink(missing_ok=True)
        if cause_of(error) != "disk":
            raise
        size = f"{os.strerror(errno.ENOSPC)} for a checkpoint of {_bytes(state) / 2**20:.1f} MiB"
        raise OSError(errno.ENOSPC, size, str(path)) from None
    if older is not None and path.exists():
        path.replace(older)
    partial.replace(path)


def _bytes(state: Any) -> int:
    """Of all tensors in nested plain values."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(_bytes(part) for part in parts)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in `path`. Raises UserError when the file is missing or holds objects, and DamagedError, which is one,
    when its bytes are not those of a checkpoint."""
    try:
        if changed := _changed(path):
            raise DamagedError(f"{path} is damaged: {changed} does not match its checksum; take another copy of it")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on files that are refused in the next line anyway
            state = torch.load(path, map_location=device, weights_only=True)
    except DamagedError:
        raise
    except FileNotFoundError:
        raise UserError(f"no such checkpoint: {path}") from None
    except Exception as error:  # a stranger's bytes make the unpickler raise nearly anything
        # What is whole and fails for another reason (no memory) must not be taken for damaged, and thrown away.
        kind = UserError if isinstance(error, OSError) or zipfile.is_zipfile(path) else DamagedError
        raise kind(f"{path} is not a checkpoint that can be read safely: {_why(error)}") from None
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not a checkpoint; give one that was saved as a dict")
    return state


def _changed(path: Path) -> str:
    """The first part of a torch.save file whose bytes have changed since; "" where none has. torch does not look."""
    if not zipfile.is_zipfile(path):
        return ""
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        return "its index"
    with archive:
        for part in archive.infolist():
            try:
                with archive.open(part) as file:
                    while file.read(1 << 20):
                        pass
            except zipfile.BadZipFile:
                if part.CRC:  # 0 is written where torch was told to do without
                    return part.filename
    return ""


def _why(error: Exception) -> str:
    """In our words: torch's own message advises to load the file unsafely."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the device has no memory left for it"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    objects = re.search(r"GLOBAL ([\w.]+)", str(error))
    if objects:
        return (
            f"it holds Python objects ({objects[1]}), which could run code when read; where you trust it, load it "
            "elsewhere and write its tensors alone: torch.save(model.state_dict(), FILE) or safetensors"
        )
    return "it is empty, damaged or of another format; expected a file of torch.save or safetensors"
