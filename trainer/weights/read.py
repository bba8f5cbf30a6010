"""Read weight files of torch or safetensors, recognised by content, without unpickling Python objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from trainer.config import UserError, message_of
from trainer.files import checkpoint

_WRAPPERS = ("model", "state_dict")
_PARALLEL = "module."
_STUDENT = "student."


class Content(NamedTuple):
    """The entries of a file, and the key that they were stored under."""

    state: dict[str, Tensor]
    wrapper: str | None
    marked: bool
    """Whether names had `module.` or `student.` before them, as in files of the reference's scripts."""


def read(path: Path) -> Content:
    """The weights in `path`. Raises UserError when it is missing, holds objects or holds no weights.

    They may be stored under `model` or `state_dict`. The prefix `module.` of DataParallel is removed. Of a file with
    `student.` entries (a run's last.pt, the reference's distillation runs) only those are read, because the reference's
    embedding assistant has patch embeddings under the same names without that prefix.
    """
    content = _safetensors(path) if _is_safetensors(path) else checkpoint.load(path)
    wrapper = None
    for key in _WRAPPERS:
        if isinstance(content.get(key), Mapping):
            content, wrapper = content[key], key
    if not content or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        raise UserError(
            f"{path} holds no weights; expected a dict of tensors, at the top or under `model` or `state_dict`"
        )
    state = {name.removeprefix(_PARALLEL): tensor for name, tensor in content.items()}
    parallel = any(name.startswith(_PARALLEL) for name in content)
    student = {name.removeprefix(_STUDENT): tensor for name, tensor in state.items() if name.startswith(_STUDENT)}
    return Content(student or state, wrapper, parallel or bool(student))


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
