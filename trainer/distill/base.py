"""Distiller: the contract of one knowledge path."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from trainer.data.batch import Batch
from trainer.models.base import Channels, SegOutput


class Distiller(nn.Module):
    """One path from a frozen teacher to a student. Owns its projections; knows no weight.

    A subclass takes `(student: Channels, teacher: Channels, *, <its options>)`, raises UserError for options or
    geometries it cannot work with, has no parameter its forward never uses, and couples samples only inside the groups
    that `set_norm_batch` declares.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """What it reads of the teacher: any of features, embeds, logits. The teacher computes nothing else."""

    def __init__(self, student: Channels, teacher: Channels) -> None:
        super().__init__()

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss: a scalar, the mean over the samples of the batch."""
        raise NotImplementedError
