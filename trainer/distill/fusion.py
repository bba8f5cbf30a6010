"""Fuse student features from deep to shallow, project each stage to the teacher's width, and compare.

Source: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021; TransKD (arXiv 2202.13393) fuses by another
module.
Letters: N samples, C_i and T_i widths of student and teacher at stage i, M the width fused, H_i and W_i sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.distill.stages import check_count, check_strides, check_weights
from trainer.models.base import FEATURES, Channels, SegOutput
from trainer.models.norm import GroupedBatchNorm2d

Distance = Callable[[Tensor, Tensor], Tensor]
"""(student (N, C, H, W), teacher (N, C, H, W)) -> a scalar, the mean over samples."""


class FusedFeatures(Distiller):
    """A distance between fused student features and the teacher's features, summed over stages.

    `mixture(M)` makes, for each stage but the deepest, the module that fuses the stage's map with the deeper stage's:
    two maps (N, M, H, W) -> one. Stages shallower than the first weight above 0 are not computed.
    """

    needs: ClassVar[frozenset[str]] = FEATURES

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        *,
        width: int,
        stage_weights: Sequence[float],
        mixture: Callable[[int], nn.Module],
        distance: Distance,
    ) -> None:
        super().__init__(student, teacher)
        check_strides(student, teacher)
        weights = check_weights(stage_weights, len(student.features))
        check_count("width", width)
        self.distance = distance
        self.stages = tuple(i for i, weight in enumerate(weights) if weight > 0)
        self.weights = tuple(weights[i] for i in self.stages)
        self.shallowest = self.stages[0]
        deepest = len(weights) - 1
        self.fusions = nn.ModuleList(
            StageFusion(
                student.features[i],
                width,
                teacher.features[i] if i in self.stages else None,
                mixture(width) if i < deepest else None,
            )
            for i in range(self.shallowest, deepest + 1)
        )

    def project(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Student features, one (N, C_i, H_i, W_i) a stage -> (N, T_i, H_i, W_i) for each stage of `self.stages`."""
        projected: list[Tensor] = []
        fused: Tensor | None = None
        for feature, fusion in zip(reversed(features[self.shallowest :]), reversed(list(self.fusions)), strict=True):
            out, fused = fusion(feature, fused)
            if out is not None:
                projected.insert(0, out)
        return tuple(projected)

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss, a scalar."""
        projected = self.project(student.features)
        losses = [
            weight * self.distance(ours, teacher.features[i])
            for weight, ours, i in zip(self.weights, projected, self.stages, strict=True)
        ]
        return torch.stack(losses).sum()


class StageFusion(nn.Module):
    """One stage: reduce to M channels, mix with the deeper stage, expand to the teacher's width."""

    def __init__(self, student_width: int, width: int, teacher_width: int | None, mixture: nn.Module | None) -> None:
        super().__init__()
        self.reduce = _convolution(student_width, width, 1)
        self.kernel = mixture  # named as in saved weights
        self.expand = None if teacher_width is None else _convolution(width, teacher_width, 3)

    def forward(self, feature: Tensor, deeper: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """feature (N, C_i, H, W), deeper (N, M, H', W') or None -> (N, T_i, H, W) or None, and fused (N, M, H, W)."""
        fused = self.reduce(feature)
        if self.kernel is not None:
            assert deeper is not None
            fused = self.kernel(fused, F.interpolate(deeper, size=fused.shape[-2:], mode="nearest"))
        return None if self.expand is None else self.expand(fused), fused


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, GroupedBatchNorm2d(outputs))
