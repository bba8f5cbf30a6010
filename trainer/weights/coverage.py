"""Coverage: which entries of a network a file has, and which entries of either do not match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from trainer.config import Normalize, plain_scale

COUNTER = "num_batches_tracked"
"""Last part of the name of BatchNorm's counter of training steps."""


class Coverage(NamedTuple):
    """The requested entries, by the network's names: those loaded from the file, and those that do not match."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    format: str
    """Title of the file's naming."""
    normalize: Normalize | None
    """Normalisation of the images in its training; None where the naming does not tell."""

    @property
    def complete(self) -> bool:
        """Whether all requested entries were found, and no others."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        wanted = len(self.loaded) + len(self.missing) + len(self.mismatched)
        parts = [f"{len(self.loaded)} of {wanted} entries fit"]
        for kind in ("missing", "unexpected", "mismatched"):
            names = getattr(self, kind)
            if names:
                parts.append(f"{len(names)} {kind} ({_first(names)})")
        return ", ".join(parts)

    def record(self, given: Normalize) -> dict[str, Any]:
        """Plain data for result.json of a run whose images have normalisation `given` for this network."""
        counts = {kind: len(getattr(self, kind)) for kind in ("loaded", "missing", "unexpected", "mismatched")}
        record: dict[str, Any] = {"format": self.format, **counts, "normalize": plain_scale(given)}
        if self.normalize not in (None, given):
            record["note"] = f"weights of this kind were trained with normalize: {self.normalize}"
        return record


def compare(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor], format: str, normalize: Normalize | None
) -> Coverage:
    """How the entries of a file, in the network's names, cover those that the network has.

    BatchNorm's counters may lack: files from before torch 0.4.1 have none, and the networks compute nothing from them.
    """
    common = [name for name in target if name in source]
    return Coverage(
        loaded=tuple(name for name in common if source[name].shape == target[name].shape),
        missing=tuple(name for name in target if name not in source and not name.endswith(COUNTER)),
        unexpected=tuple(name for name in source if name not in target),
        mismatched=tuple(name for name in common if source[name].shape != target[name].shape),
        format=format,
        normalize=normalize,
    )


def _first(names: Sequence[str], n: int = 3) -> str:
    return ", ".join(names[:n]) + (", ..." if len(names) > n else "")
