"""Cross Selective Fusion: student features fused from deep to shallow, compared with the teacher's.

Source: CSF of TransKD, arXiv 2202.13393.
Letters: N samples, C_i and T_i widths of student and teacher at stage i, M the width fused, H_i and W_i sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import UserError
from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.distill.losses import hierarchical_context
from trainer.distill.stages import check_count, check_strides, check_weights
from trainer.models.base import Channels, SegOutput
from trainer.norm import GroupedBatchNorm2d

SQUEEZED = 32
"""Channels in the waist of the selective kernel attention."""


class CrossSelectiveFusion(Distiller):
    """Hierarchical context loss between fused student features and the teacher's features, summed over stages.

    Options. `width`: channels M that are fused and passed from stage to stage. `norm`: `layer` normalises the squeezed
    vector of the attention over its channels; `reference` does as the published code does, by BatchNorm over the group,
    or not at all in groups of one sample. `stage_weights`: factor of each stage's loss, shallow to deep; the stages
    shallower than the last weight above 0 are not computed.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        *,
        width: int = 64,
        norm: str = "layer",
        stage_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    ) -> None:
        super().__init__(student, teacher)
        check_strides(student, teacher)
        weights = check_weights(stage_weights, len(student.features))
        check_count("width", width)
        if norm not in tuple(SQUEEZES):  # a tuple, for YAML may give what has no hash
            raise UserError(f"norm must be one of {', '.join(SQUEEZES)} but got {norm!r}")
        self.stages = tuple(i for i, weight in enumerate(weights) if weight > 0)
        self.weights = tuple(weights[i] for i in self.stages)
        self.shallowest = self.stages[0]
        deepest = len(weights) - 1
        self.fusions = nn.ModuleList(
            StageFusion(
                student.features[i],
                width,
                teacher.features[i] if i in self.stages else None,
                SelectiveKernel(width, norm) if i < deepest else None,
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
            weight * hierarchical_context(ours, teacher.features[i])
            for weight, ours, i in zip(self.weights, projected, self.stages, strict=True)
        ]
        return torch.stack(losses).sum()


class StageFusion(nn.Module):
    """One stage: reduce to M channels, fuse with the deeper stage, expand to the teacher's width."""

    def __init__(
        self, student_width: int, width: int, teacher_width: int | None, kernel: SelectiveKernel | None
    ) -> None:
        super().__init__()
        self.reduce = _convolution(student_width, width, 1)
        self.kernel = kernel
        self.expand = None if teacher_width is None else _convolution(width, teacher_width, 3)

    def forward(self, feature: Tensor, deeper: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """feature (N, C_i, H, W), deeper (N, M, H', W') or None -> (N, T_i, H, W) or None, and fused (N, M, H, W)."""
        fused = self.reduce(feature)
        if self.kernel is not None:
            assert deeper is not None
            fused = self.kernel(fused, F.interpolate(deeper, size=fused.shape[-2:], mode="nearest"))
        return None if self.expand is None else self.expand(fused), fused


class SelectiveKernel(nn.Module):
    """Attention that weighs two maps channel by channel, by what both hold together.

    Source: Li et al., Selective Kernel Networks, CVPR 2019.
    """

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.squeeze = SQUEEZES[norm](width)
        self.own = nn.Linear(SQUEEZED, width)
        self.deeper = nn.Linear(SQUEEZED, width)

    def forward(self, own: Tensor, deeper: Tensor) -> Tensor:
        """own and deeper (N, M, H, W) -> their mixture (N, M, H, W)."""
        squeezed = self.squeeze(own.mean((2, 3)) + deeper.mean((2, 3)))  # (N, 32)
        # a softmax over two is the sigmoid of their difference, and the mixture is then a linear interpolation
        share = torch.sigmoid(self.own(squeezed) - self.deeper(squeezed))[:, :, None, None]  # (N, M, 1, 1)
        return torch.lerp(deeper, own, share.to(own.dtype))


class LayerSqueeze(nn.Sequential):
    """(N, M) -> (N, 32), normalised over the channels of each sample: no sample depends on another."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, SQUEEZED, bias=False), nn.LayerNorm(SQUEEZED), nn.ReLU())


class ReferenceSqueeze(nn.Module):
    """(N, M) -> (N, 32): BatchNorm in groups of several samples, another projection without it in groups of one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.grouped = nn.Linear(width, SQUEEZED, bias=False)
        self.norm = GroupedBatchNorm2d(SQUEEZED)
        self.single = nn.Linear(width, SQUEEZED, bias=False)
        self.norm_batch: int | None = None

    def set_norm_batch(self, norm_batch: int) -> None:
        """Declare the samples in one group, and freeze the projection that such groups never use."""
        self.norm_batch = norm_batch
        self.grouped.requires_grad_(norm_batch > 1)
        self.norm.requires_grad_(norm_batch > 1)
        self.single.requires_grad_(norm_batch == 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, M) -> (N, 32). Undeclared, the batch is the group."""
        if (self.norm_batch or len(x)) == 1:
            return F.relu(self.single(x))
        return F.relu(self.norm(self.grouped(x)[:, :, None, None])).flatten(1)


SQUEEZES: dict[str, type[LayerSqueeze] | type[ReferenceSqueeze]] = {
    "layer": LayerSqueeze,
    "reference": ReferenceSqueeze,
}


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, GroupedBatchNorm2d(outputs))
