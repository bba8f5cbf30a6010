"""Checkpoints: written atomically, and read without unpickling Python objects."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import decimal
import errno
import fractions
import hashlib
import os
import pathlib
import re
import types
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch

from trainer.config import UserError, message_of
from trainer.config.input_files import check_regular
from trainer.files.atomic import replacing
from trainer.files.failure import cause_of
from trainer.files.run_folder import check_held

_LIGHTNING = (
    "lightning.fabric.utilities.data",
    "lightning_fabric.utilities.data",
    "pytorch_lightning.utilities.parsing",
)


class HistoryBuffer:
    """Stands for mmengine's class of this name, so that its checkpoints can be read without it."""

    def __init__(self, *arguments: object) -> None: ...


def _empty_dict(*_factory: object) -> dict[Any, Any]:
    """Stands for defaultdict, which the unpickler cannot fill."""
    return {}


def _empty_list(*_arguments: object) -> list[Any]:
    """Stands for deque, which the unpickler cannot fill."""
    return []


def _factory(*_arguments: object) -> None:
    """Stands for what a defaultdict makes its values with: nothing of the file is made by it."""


_ARRAYS = {"_reconstruct": np.empty(0).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
HARMLESS: list[Any] = [
    *((make, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core") for name, make in _ARRAYS.items()),
    *(type(np.dtype(code)) for code in "?bhilqBHILQefdgFDGSUMm"),
    *(np.dtype, np.ndarray),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
    *(pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath),
    (pathlib.PureWindowsPath, "pathlib.WindowsPath"),
    *(argparse.Namespace, slice, range, frozenset),
    *((dict, f"{module}.AttributeDict") for module in _LIGHTNING),
    (_empty_dict, "collections.defaultdict"),
    (_empty_list, "collections.deque"),
    *((_factory, f"builtins.{name}") for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
    *(types.SimpleNamespace, decimal.Decimal, fractions.Fraction),
    (HistoryBuffer, "mmengine.logging.history_buffer.HistoryBuffer"),
]
"""Types beside torch's that a checkpoint may hold, or (stand-in, name of the type): they run no code of the file."""


class MissingError(UserError):
    """The checkpoint file does not exist."""


class DamagedError(UserError):
    """The file's bytes are not those of a checkpoint."""


def save(path: Path, state: dict[str, Any], previous: Path | None = None) -> None:
    """Write `state` (tensors and plain values) by `replacing(path, previous)`: the old file or the new one, never half.

    Raises OSError with the size needed when the disk is full, and LostFolderError where another process trains in the
    folder by now; the old file stays.
    """
    try:
        with replacing(path, previous) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
            check_held(path.parent)  # the machine may have stood still while it wrote
    except Exception as error:
        if cause_of(error) != "disk":
            raise
        size = f"{os.strerror(errno.ENOSPC)} for a checkpoint of {_bytes(state) / 2**20:.1f} MiB"
        raise OSError(errno.ENOSPC, size, str(path)) from None


def _bytes(state: Any) -> int:
    """Bytes of all tensors in nested dicts, lists and tuples."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(_bytes(part) for part in parts)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in `path`.

    Raises MissingError, DamagedError when the bytes are not those of a checkpoint, UserError (the base of both) when it
    holds Python objects or cannot be opened, and torch's own error when memory is short.
    """
    whole = False
    check_regular(path)
    try:
        if zipfile.is_zipfile(path):
            if changed := _corrupt_part(path):
                raise DamagedError(f"{path} is damaged: {changed} does not match its checksum; take another copy of it")
            whole = True
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about files that are refused in the next line
            state = torch.load(path, map_location=device, weights_only=True)
    except DamagedError:
        raise
    except FileNotFoundError:
        raise MissingError(f"no such checkpoint: {path}") from None
    except Exception as error:  # on foreign bytes zipfile and the unpickler raise nearly any error
        if cause_of(error) == "memory":
            raise
        # A damaged checkpoint gets deleted, so a whole one that fails for another reason must not count as damaged.
        # torch's zip reader (PyTorchStreamReader) is stricter than Python's.
        whole = whole and "PytorchStreamReader" not in message_of(error)
        kind = UserError if whole or _unreadable(error) else DamagedError
        raise kind(f"{path} is not a checkpoint that can be read safely: {_reason(error)}") from None
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not a checkpoint; give one that was saved as a dict")
    return state


def finished_run(path: Path) -> str:
    """The id of the run that ended with the weights in `path`, its last.pt. "" for other weights: those from elsewhere,
    a best.pt, the last.pt of a run that has not ended, and weights that were changed since."""
    with contextlib.suppress(UserError):
        return run_ended_with(load(path))
    return ""


def run_ended_with(state: Mapping[str, Any]) -> str:
    """`finished_run` of a file that has been loaded."""
    final = state.get("final_weights")
    return str(state["run_id"]) if final and final == weights_digest(state["model"]) else ""


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """The sha256 of the names and values of tensors."""
    found = hashlib.sha256()
    for name, tensor in weights.items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _corrupt_part(path: Path) -> str:
    """The first entry of a torch.save zip file whose checksum fails, "" if none: torch does not verify checksums."""
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            try:
                with archive.open(part) as file:
                    while file.read(1 << 20):
                        pass
            except zipfile.BadZipFile:
                if part.CRC:  # 0 means that torch was told to write no checksums
                    return part.filename
    return ""


def _unreadable(error: Exception) -> TypeGuard[OSError]:
    """Whether the system refused to read the file. EINVAL does not count: torch raises it for a truncated file."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def _reason(error: Exception) -> str:
    """The reason in our words, because torch's message advises to load the file unsafely."""
    if _unreadable(error):
        return error.strerror or type(error).__name__
    objects = re.search(r"GLOBAL ([\w.]+)", str(error))
    if objects:
        return (
            f"it holds Python objects ({objects[1]}), which could run code when read; where you trust it, load it "
            "elsewhere and write its tensors alone: torch.save(model.state_dict(), FILE) or safetensors"
        )
    return "it is empty, damaged or of another format; expected a file of torch.save or safetensors"


def steps_within_epoch(state: Mapping[str, Any]) -> int:
    """The steps that a last.pt holds of the epoch after its history; 0 where it was saved after an epoch."""
    return int(state["epoch_part"]["steps"]) if "epoch_part" in state else 0


def metrics_of_weights(state: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of the last epoch of a last.pt; none where it was saved within an epoch: its weights are others."""
    last: dict[str, float] = {} if "epoch_part" in state else state["history"][-1]
    return last
