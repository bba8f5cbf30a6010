"""Patch Embedding Alignment (PEA): match the student's projected patch embeddings to the teacher's.

Source: PEA of TransKD, arXiv 2202.13393.
Letters: N samples, L_i tokens of stage i, C_i and T_i widths of student and teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.distill.divergences import channel_square, choose_distance, divergence
from trainer.distill.losses import mean_squared_difference
from trainer.distill.stages import check_strides, check_weights
from trainer.models.base import EMBEDS, Channels, SegOutput

STAGE_WEIGHTS, DISTANCE = (0.1, 0.1, 0.5, 1.0), "mse"
"""Defaults of `pea`, `pea_gl` and `pea_ea`, as published."""

DISTANCES: dict[str, Callable[..., Tensor]] = {
    "mse": mean_squared_difference,
    "cwd": lambda student, teacher, temperature=1.0: divergence(student, teacher, 1, temperature),
    "kl": lambda student, teacher, temperature=1.0: divergence(student, teacher, 2, temperature),
    "channel_mse": lambda student, teacher, temperature=1.0: channel_square(student.mT, teacher.mT, temperature),
    "token_mse": channel_square,
}
"""Distances of embeddings (N, L, T): a scalar, the mean over samples. All but `mse` compare softmax distributions."""


def align(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    weights: Sequence[float],
    distance: Callable[[Tensor, Tensor], Tensor] = mean_squared_difference,
) -> Tensor:
    """Weighted sum over stages of the distance of embeddings (N, L_i, T_i): a scalar."""
    losses = [weight * distance(ours, theirs) for weight, ours, theirs in zip(weights, student, teacher, strict=True)]
    return torch.stack(losses).sum()


class PatchEmbeddingAlignment(Distiller):
    """A linear projection of each stage's patch embedding to the teacher's width, and a distance from the teacher's.

    Options. `stage_weights`: factor of each stage's loss, shallow to deep; a stage of weight 0 has no projection and is
    not computed. `distance`: `mse`, the mean squared difference; `cwd`, the KL divergence of each channel's softmax
    over tokens; `kl`, that of each token's softmax over channels; `channel_mse` and `token_mse`, the squared distance
    of the same distributions. `temperature`: of all but `mse`, default 1.
    """

    needs: ClassVar[frozenset[str]] = EMBEDS

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        *,
        stage_weights: Sequence[float] = STAGE_WEIGHTS,
        distance: str = DISTANCE,
        temperature: float | None = None,
    ) -> None:
        super().__init__(student, teacher)
        check_strides(student, teacher)
        weights = check_weights(stage_weights, len(student.embeds))
        self.distance = choose_distance(DISTANCES, distance, temperature)
        self.stages = tuple(i for i, weight in enumerate(weights) if weight > 0)
        self.weights = tuple(weights[i] for i in self.stages)
        self.projections = nn.ModuleList(nn.Linear(student.embeds[i], teacher.embeds[i]) for i in self.stages)

    def embed(self, batch: Batch, student: SegOutput) -> tuple[Tensor, ...]:
        """The projected student embeddings (N, L_i, T_i) for each stage of `self.stages`."""
        return tuple(projection(student.embeds[i]) for projection, i in zip(self.projections, self.stages, strict=True))

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss, a scalar."""
        theirs = [teacher.embeds[i] for i in self.stages]
        return align(self.embed(batch, student), theirs, self.weights, self.distance)
