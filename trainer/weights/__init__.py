"""Loads weights into a network by name, and refuses a file that does not fit with a report of what was missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from trainer import checkpoint
from trainer.config import UserError
from trainer.models.base import SegModel

_HEADS = ("linear_", "neck.", "head.", "decode_head.", "auxiliary_head.")
"""First words of the names of segmentation and classification heads; all other entries are the backbone's."""


class Coverage(NamedTuple):
    """Names of the entries asked for: what the file gave, and what did not fit."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Everything asked for was found, and nothing was left over."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        wanted = len(self.loaded) + len(self.missing) + len(self.mismatched)
        parts = [f"{len(self.loaded)} of {wanted} entries fit"]
        for kind, names in zip(self._fields[1:], self[1:], strict=True):
            if names:
                parts.append(f"{len(names)} {kind} ({_first(names)})")
        return ", ".join(parts)


def load_weights(model: SegModel, path: Path, *, what: Literal["all", "backbone"]) -> Coverage:
    """Copy a checkpoint's entries into `model`, all of them or the backbone's, and say what was copied.

    The file is a state dict or holds one under `model` or `state_dict`. A `module.` prefix is taken off, and of a file
    with `student.` entries only those are read. Raises UserError, leaving the model as it was, when the file is no
    checkpoint or when anything asked for is missing, left over or of another shape.
    """
    source = _read(path)
    target = model.state_dict()
    if what == "backbone":
        source, target = _backbone(source), _backbone(target)
    common = [name for name in target if name in source]
    coverage = Coverage(
        loaded=tuple(name for name in common if source[name].shape == target[name].shape),
        missing=tuple(name for name in target if name not in source),
        unexpected=tuple(name for name in source if name not in target),
        mismatched=tuple(name for name in common if source[name].shape != target[name].shape),
    )
    if not coverage.complete:
        part = "backbone" if what == "backbone" else "network"
        raise UserError(f"{path} does not fit the {part}: {coverage}; name the model and classes it was made for")
    model.load_state_dict({name: source[name] for name in target}, strict=what == "all")
    return coverage


def _read(path: Path) -> dict[str, Tensor]:
    content: Any = checkpoint.load(path)
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no weights; expected names and tensors, alone or under `model`")
    state = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    student = {name.removeprefix("student."): t for name, t in state.items() if name.startswith("student.")}
    return student or state


def _backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(_HEADS)}


def _first(names: Sequence[str], n: int = 3) -> str:
    return ", ".join(names[:n]) + (", ..." if len(names) > n else "")
