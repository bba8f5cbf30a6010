"""remembered(): what an entry keeps from one call to the next, as a run that resumes or splits batches does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from trainer.models.norm import takes_statistics

FORGET = "keep nothing from one call to the next"
"""The remedy."""

_OF_TORCH = vars(nn.Module()).keys()


def remembered(entry: object, call: Callable[[], object]) -> list[str]:
    """The attributes and buffers of an entry, and of the modules in it, that a second equal call changes.

    What the first call fills, such as a cache by size, is none. BatchNorm's statistics belong to the step. Not seen:
    what an entry keeps in its module, its class, or objects other than numbers, texts, tensors and lists of them.
    """
    call()
    before = _held(entry)
    call()
    after = _held(entry)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _held(entry: object) -> dict[str, Any]:
    modules = dict(entry.named_modules()) if isinstance(entry, nn.Module) else {"": entry}
    found: dict[str, Any] = {}
    for path, owner in modules.items():
        if isinstance(owner, nn.Module) and takes_statistics(owner):
            continue
        held = {name: value for name, value in vars(owner).items() if name not in _OF_TORCH}
        held |= dict(owner.named_buffers(recurse=False)) if isinstance(owner, nn.Module) else {}
        found |= {f"{path}.{name}" if path else name: _plain(value) for name, value in held.items()}
    return found


def _plain(value: Any) -> Any:
    """A copy that equals that of an equal value; of an object of another kind only its type."""
    if isinstance(value, Tensor):
        return value.dtype, repr(value.detach().cpu().tolist())
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {repr(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, int | float | str | bytes | set | frozenset | None):
        return repr(value)
    return type(value)
