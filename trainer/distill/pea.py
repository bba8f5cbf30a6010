"""Patch Embedding Alignment: the student's patch embeddings, projected, against the teacher's.

Source: PEA of TransKD, arXiv 2202.13393.
Letters: N samples, L_i tokens of stage i, C_i and T_i widths of student and teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.distill.losses import difference, mean_square
from trainer.distill.stages import check_strides, check_weights
from trainer.models.base import Channels, SegOutput


def align(student: Sequence[Tensor], teacher: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted sum over stages of the mean squared difference of embeddings (N, L_i, T_i): a scalar."""
    losses = [
        weight * mean_square(difference(ours, theirs))
        for weight, ours, theirs in zip(weights, student, teacher, strict=True)
    ]
    return torch.stack(losses).sum()


class PatchEmbeddingAlignment(Distiller):
    """A linear projection of each stage's patch embedding to the teacher's width, and the mean squared difference.

    Options. `stage_weights`: factor of each stage's loss, shallow to deep; a stage of weight 0 has no projection and is
    not computed.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"embeds"})

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        *,
        stage_weights: Sequence[float] = (0.1, 0.1, 0.5, 1.0),
    ) -> None:
        super().__init__(student, teacher)
        check_strides(student, teacher)
        weights = check_weights(stage_weights, len(student.embeds))
        self.stages = tuple(i for i, weight in enumerate(weights) if weight > 0)
        self.weights = tuple(weights[i] for i in self.stages)
        self.projections = nn.ModuleList(nn.Linear(student.embeds[i], teacher.embeds[i]) for i in self.stages)

    def embed(self, batch: Batch, student: SegOutput) -> tuple[Tensor, ...]:
        """What is compared: (N, L_i, T_i) for each stage of `self.stages`."""
        return tuple(projection(student.embeds[i]) for projection, i in zip(self.projections, self.stages, strict=True))

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss, a scalar."""
        return align(self.embed(batch, student), [teacher.embeds[i] for i in self.stages], self.weights)
