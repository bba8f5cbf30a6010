"""Read weight files of torch or safetensors, recognised by content, without unpickling Python objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from trainer.config import UserError, message_of
from trainer.files import checkpoint
from trainer.files.weight_files import weight_files

_INSERTED = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
"""Parts of names that torch.compile, FSDP, activation checkpointing and Lightning insert at any depth."""

_COUNTS = (".total_ops", ".total_params")
"""Entries that the profiler thop adds to every module."""

_DEEPEST = 4
"""Levels of dicts that are searched for tensors."""


def read(path: Path) -> dict[str, Tensor]:
    """All tensors in `path`, by their names; of a tensor in nested dicts, the keys joined by dots.

    `path` is a file, or a folder or index of Hugging Face with one file or several shards. Raises UserError when it is
    missing, holds objects or holds no tensors.
    """
    found: dict[str, Tensor] = {}
    for file in weight_files(path):
        content = _safetensors(file) if _is_safetensors(file) else checkpoint.load(file)
        found.update(_tensors(content))
    if not found:
        raise UserError(f"{path} holds no weights; expected a dict of tensors, or one inside the dict")
    return found


def _tensors(content: Mapping[Any, Any], before: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _tensors(value, f"{before}{key}.", depth + 1)
        elif isinstance(value, Tensor) and not key.endswith(_COUNTS):
            yield ".".join(part for part in f"{before}{key}".split(".") if part not in _INSERTED), value


def check_numbers(path: Path, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Raise UserError unless an entry holds plain numbers that are finite as `dtype`: no integers for a weight."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        kind = "without values" if tensor.is_meta else "quantised" if tensor.is_quantized else "sparse"
        raise UserError(f"{path}: {name} is a tensor that is {kind}; take a checkpoint of ordinary tensors")
    if dtype.is_floating_point and not tensor.is_floating_point():
        raise UserError(
            f"{path}: {name} holds {str(tensor.dtype).removeprefix('torch.')} and weights are floating-point numbers; "
            "take a checkpoint that is not quantised"
        )
    if not tensor.to(dtype).isfinite().all():
        raise UserError(f"{path}: {name} holds numbers that are not finite; take another checkpoint")


def _is_safetensors(path: Path) -> bool:
    """Whether the file starts like safetensors: 8 bytes with the header's length, then a JSON object."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path} is a damaged safetensors file: {message_of(error)}; download or write it again"
        ) from None
