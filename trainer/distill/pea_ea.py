"""PEA with the Embedding Assistant: additional patch embeddings at the teacher's width.

Source: TransKD-EA, arXiv 2202.13393.
Letters: N samples, H and W sizes, L_i tokens of stage i, C_i and T_i widths of student and teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import UserError
from trainer.data.batch import Batch
from trainer.distill.pea import DISTANCE, STAGE_WEIGHTS, PatchEmbeddingAlignment
from trainer.distill.stages import check_numbers, check_stages
from trainer.models.base import Channels, SegOutput


class EmbeddingAssistant(PatchEmbeddingAlignment):
    """Aligns the sum of two embeddings: the projected one, and an assistant's at the teacher's width.

    The assistant embeds the input of the student's stage: the image, or the feature of the stage before.
    Options. `stage_weights`, `distance`, `temperature`: as in `pea`. `assisted`: the stages with an assistant, 1 to 4;
    the others are as in `pea`. `projection_scales` and `assistant_scales`: initial values of the learned factors of the
    two summands, one per stage.
    """

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        *,
        stage_weights: Sequence[float] = STAGE_WEIGHTS,
        distance: str = DISTANCE,
        temperature: float | None = None,
        assisted: Sequence[int] = (1, 2, 3, 4),
        projection_scales: Sequence[float] = (0.1, 0.2, 0.3, 0.4),
        assistant_scales: Sequence[float] = (0.5, 0.6, 0.7, 0.8),
    ) -> None:
        super().__init__(student, teacher, stage_weights=stage_weights, distance=distance, temperature=temperature)
        stages = len(student.embeds)
        chosen = check_stages("assisted", assisted, stages)
        self.assisted = tuple(i for i in self.stages if i in chosen)
        if not self.assisted:
            raise UserError(
                f"assisted must name a stage of weight above 0 but got {list(assisted)}; without any use `pea`"
            )
        projections = check_numbers("projection_scales", projection_scales, stages)
        assistants = check_numbers("assistant_scales", assistant_scales, stages)
        self.projection_scales = nn.Parameter(torch.tensor([projections[i] for i in self.assisted]))
        self.assistant_scales = nn.Parameter(torch.tensor([assistants[i] for i in self.assisted]))
        inputs, strides = (3, *student.features), (1, *student.strides)
        self.assistants = nn.ModuleList(
            PatchEmbedding(inputs[i], teacher.embeds[i], _step(strides[i], strides[i + 1])) for i in self.assisted
        )

    def embed(self, batch: Batch, student: SegOutput) -> tuple[Tensor, ...]:
        """The embeddings to align (N, L_i, T_i) for each stage of `self.stages`."""
        inputs = (batch.image, *student.features)
        embeds = []
        for module, i in zip(self.projections, self.stages, strict=True):
            if i not in self.assisted:
                embeds.append(module(student.embeds[i]))
                continue
            index, projection = self.assisted.index(i), cast(nn.Linear, module)
            scale = self.projection_scales[index]
            # scaling the parameters instead of the output saves two passes over all tokens
            projected = F.linear(student.embeds[i], scale * projection.weight, scale * projection.bias)
            embeds.append(projected + self.assistants[index](inputs[i], self.assistant_scales[index]))
        return tuple(embeds)


class PatchEmbedding(nn.Module):
    """Overlapping patches by a convolution of kernel 2 x step - 1, then LayerNorm.

    Source: Xie et al., SegFormer, NeurIPS 2021: 7x7 in steps of 4, 3x3 in steps of 2.
    """

    def __init__(self, inputs: int, width: int, step: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(inputs, width, 2 * step - 1, stride=step, padding=step - 1)
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.patches.weight, std=(2 / ((2 * step - 1) ** 2 * width)) ** 0.5)
        nn.init.constant_(cast(Tensor, self.patches.bias), 0)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """x (N, C, H, W), scale () -> scale times the embedding, (N, ceil(H / step) * ceil(W / step), T)."""
        # a channels-last convolution returns tokens in memory order; features are channels last, the image is not
        x = x.contiguous(memory_format=torch.channels_last)
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        gain, bias = scale * self.norm.weight, scale * self.norm.bias
        return F.layer_norm(tokens, self.norm.normalized_shape, gain, bias, self.norm.eps)


def _step(before: int, after: int) -> int:
    """The stride of a stage relative to the one before. Raises UserError unless it is an integer."""
    if after % before:
        raise UserError(
            f"the student's strides must be multiples of one another but got {before} and {after}; use `pea`"
        )
    return after // before
