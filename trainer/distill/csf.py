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
"""Channels of the bottleneck of the selective kernel attention."""

DISTANCES: dict[str, Callable[..., Tensor]] = {
    "hcl": hierarchical_context,
    "mse": mean_squared_difference,
    "cwd": channel_divergence,
    "kl": pixel_divergence,
}


class CrossSelectiveFusion(FusedFeatures):
    """A distance between fused student features and the teacher's features, summed over stages.

    Options. `width`: channels M of the fused maps. `norm`: normalisation in the attention's bottleneck; `layer` is
    LayerNorm; `reference` is, as in the published code, BatchNorm over the group, or none in groups of one sample.
    `stage_weights`: factor of each stage's loss, shallow to deep; stages shallower than the first weight above 0 are
    not computed. `distance`: `hcl`, the hierarchical context loss; `mse`, the mean squared difference; `cwd`, the KL
    divergence of softmax over positions, per channel; `kl`, the KL divergence of softmax over channels, per position,
    as the published code computes under this name. `temperature`: of `cwd` and `kl`, default 1.
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
    """Attention that weighs two maps per channel, from the average-pooled sum of both.

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
        # a softmax over two scores is the sigmoid of their difference, so the mixture is a linear interpolation
        share = torch.sigmoid(self.own(squeezed) - self.deeper(squeezed))[:, :, None, None]  # (N, M, 1, 1)
        # lerp wants one dtype, and CUDA's autocast returns the upsampled `deeper` in float32
        return torch.lerp(deeper.to(own.dtype), own, share.to(own.dtype))


class LayerSqueeze(nn.Sequential):
    """(N, M) -> (N, 32) with LayerNorm, so that samples are independent."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, SQUEEZED, bias=False), nn.LayerNorm(SQUEEZED), nn.ReLU())


class ReferenceSqueeze(nn.Module):
    """(N, M) -> (N, 32): with BatchNorm for groups of several samples; for groups of one, a projection without it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.grouped = nn.Linear(width, SQUEEZED, bias=False)
        self.norm = GroupedBatchNorm2d(SQUEEZED)
        self.single = nn.Linear(width, SQUEEZED, bias=False)
        self.norm_batch: int | None = None

    def set_norm_batch(self, norm_batch: int) -> None:
        """Set the number of samples in one group, and freeze the projection that such groups do not use."""
        self.norm_batch = norm_batch
        self.grouped.requires_grad_(norm_batch > 1)
        self.norm.requires_grad_(norm_batch > 1)
        self.single.requires_grad_(norm_batch == 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, M) -> (N, 32). Without `norm_batch`, the batch is one group."""
        if (self.norm_batch or len(x)) == 1:
            return F.relu(self.single(x))
        return F.relu(self.norm(self.grouped(x)[:, :, None, None])).flatten(1)


SQUEEZES: dict[str, type[LayerSqueeze] | type[ReferenceSqueeze]] = {
    "layer": LayerSqueeze,
    "reference": ReferenceSqueeze,
}
