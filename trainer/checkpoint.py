"""Checkpoints: written whole or not at all, and read without unpickling objects."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from trainer.config import UserError


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) so that a kill at any moment leaves the old file or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in `path`. Raises UserError when the file is missing, holds objects or is no checkpoint."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on files that are refused in the next line anyway
            state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no such checkpoint: {path}") from None
    except Exception as error:  # a stranger's bytes make the unpickler raise nearly anything
        raise UserError(f"{path} is not a checkpoint that can be read safely: {_why(error)}") from None
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not a checkpoint; give one that was saved as a dict")
    return state


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
