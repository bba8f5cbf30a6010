"""Distiller: the base class of knowledge paths."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from trainer.data.batch import Batch
from trainer.models.base import Channels, SegOutput


class Distiller(nn.Module):
    """One knowledge path: a loss between a frozen teacher and a student, with its projections.

    Loss weights are applied by Learner.

    A subclass takes `(student: Channels, teacher: Channels, *, <its options>)` and raises UserError for options or
    geometries that it does not support. Its forward uses every parameter (DDP requires it), and relates samples only
    within the groups of `set_norm_batch`, so that the loss does not depend on micro-batches and workers.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """The teacher's outputs that it reads: any of LOGITS, FEATURES, EMBEDS. The teacher computes no others."""

    def __init__(self, student: Channels, teacher: Channels) -> None:
        super().__init__()

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss: a scalar, the mean over the samples of the batch."""
        raise NotImplementedError
