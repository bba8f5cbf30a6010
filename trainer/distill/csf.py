"""Cross Selective Fusion: student features fused from deep to shallow by selective kernels, against the teacher's.

Source: CSF of TransKD, arXiv 2202.13393.
Letters: N samples, M the width fused, H and W sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.distill.divergences import channel_divergence, choose_distance, pixel_divergence
from trainer.distill.fusion import FusedFeatures
from trainer.distill.losses import hierarchical_context, mean_squared_difference
from trainer.distill.stages import check_choice
from trainer.models.base import Channels
from trainer.models.norm import GroupedBatchNorm2d

SQUEEZED = 32
"""Channels in the waist of the selective kernel attention."""

DISTANCES: dict[str, Callable[..., Tensor]] = {
    "hcl": hierarchical_context,
    "mse": mean_squared_difference,
    "cwd": channel_divergence,
    "kl": pixel_divergence,
}


class CrossSelectiveFusion(FusedFeatures):
    """A distance between fused student features and the teacher's features, summed over stages.

    Options. `width`: channels M that are fused and passed from stage to stage. `norm`: `layer` normalises the squeezed
    vector of the attention over its channels; `reference` does as the published code does, by BatchNorm over the group,
    or not at all in groups of one sample. `stage_weights`: factor of each stage's loss, shallow to deep; the stages
    shallower than the last weight above 0 are not computed. `distance`: `hcl`, the hierarchical context loss; `mse`,
    the mean squared difference; `cwd`, the divergence of softmax over positions, channel by channel; `kl`, that of
    softmax over channels, position by position, which the published code computes under this name. `temperature`: of
    `cwd` and `kl`, 1 if not given.
    """

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        *,
        width: int = 64,
        norm: str = "layer",
        stage_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        distance: str = "hcl",
        temperature: float | None = None,
    ) -> None:
        check_choice("norm", norm, SQUEEZES)
        super().__init__(
            student,
            teacher,
            width=width,
            stage_weights=stage_weights,
            mixture=partial(SelectiveKernel, norm=norm),
            distance=choose_distance(DISTANCES, distance, temperature),
        )


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
