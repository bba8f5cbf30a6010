"""The all-MLP head of SegFormer (Xie et al., arXiv 2105.15203, section 3.2), which LVT uses too.

Its modules are attributes of the network itself, under the official names: linear_c4..1, linear_fuse, linear_pred.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.layers import to_map, to_tokens
from trainer.models.masks import ChannelDropout
from trainer.models.norm import GroupedBatchNorm2d
from trainer.models.pyramid import STRIDES, Pyramid

STAGES = tuple(range(1, len(STRIDES) + 1))


class Geometry(NamedTuple):
    """The widths and depths of one size of a family."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    head_width: int


class Projection(nn.Module):
    """The linear layer from a stage to the width of the head. FoldedFusion reads its parameters; it is not called."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, head_width)


class FoldedFusion(nn.Module):
    """Projects the stages and fuses them at stride 4, with one small matrix product per stage.

    The published head projects each stage, upsamples all to stride 4, concatenates (deepest first) and convolves 1x1.
    All that is linear, and bilinear upsampling commutes with linear maps over channels and preserves constants. So each
    stage is multiplied by (its slice of the convolution x its projection) at its own resolution, upsampled and summed:
    the same function, 3.7 x cheaper.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(len(STAGES) * width, width, 1, bias=False)
        self.bn = GroupedBatchNorm2d(width)
        self.activate = nn.ReLU()
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Sequence[Tensor], projections: Sequence[nn.Linear]) -> Tensor:
        """Stage outputs (N, C_i, H / s_i, W / s_i), shallow first -> (N, width, H / 4, W / 4)."""
        weights, bias = self._fold(projections)
        fused = _multiply(features[0], weights[0], bias)
        for feature, weight in zip(features[1:], weights[1:], strict=True):
            product = _multiply(feature, weight, None)
            fused = fused + F.interpolate(product, size=fused.shape[2:], mode="bilinear", align_corners=False)
        return self.activate(self.bn(fused))

    def _fold(self, projections: Sequence[nn.Linear]) -> tuple[list[Tensor], Tensor]:
        """One weight (width, C_i) per stage and their summed bias (width,), at least in float32."""
        dtype = torch.promote_types(self.conv.weight.dtype, torch.float32)
        with _no_autocast(self.conv.weight.device):
            slices = self.conv.weight.flatten(1).to(dtype).chunk(len(STAGES), dim=1)[::-1]
            pairs = list(zip(slices, projections, strict=True))
            weights = [part @ projection.weight.to(dtype) for part, projection in pairs]
            biases = [part @ projection.bias.to(dtype) for part, projection in pairs]
        return weights, torch.stack(biases).sum(0)

    def paper_macs(self, inputs: tuple[Sequence[Tensor], Sequence[nn.Linear]], output: Tensor) -> int:
        """MACs of the published computation that the fold replaces: the projections and the convolution."""
        features, projections = inputs
        projected = sum(f[:, 0].numel() * p.weight.numel() for f, p in zip(features, projections, strict=True))
        return projected + output[:, 0].numel() * self.conv.weight.numel()


FULL_PRECISION = (Projection, FoldedFusion)
"""Modules whose weights autocast leaves in float32, as the head multiplies them with one another."""


class AllMLPNetwork(Pyramid):
    """A pyramid with the all-MLP head. A subclass calls `add_head` after building its encoder."""

    def add_head(self, widths: Sequence[int], head_width: int, num_classes: int, dropout: float) -> None:
        """Build the head for stages of widths C_i."""
        for stage, width in zip(STAGES[::-1], widths[::-1], strict=True):
            self.add_module(f"linear_c{stage}", Projection(width, head_width))
        self.linear_fuse = FoldedFusion(head_width)
        self.dropout = ChannelDropout("dropout", dropout, head_width)
        self.linear_pred = nn.Conv2d(head_width, num_classes, 1)

    def decode(self, features: list[Tensor], masks: Mapping[str, Tensor] | None) -> Tensor:
        """The four stages' outputs, shallow first -> logits (N, K, H / 4, W / 4)."""
        projections = [getattr(self, f"linear_c{stage}").proj for stage in STAGES]
        return self.linear_pred(self.dropout(self.linear_fuse(features, projections), masks))


def _multiply(feature: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear map over the channels of a channels-last map (N, C, h, w)."""
    bias = None if bias is None else bias.to(feature.dtype)
    product = F.linear(to_tokens(feature), weight.to(feature.dtype), bias)
    return to_map(product, (feature.shape[2], feature.shape[3]))


def _no_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """No autocast for products of weights: they are cheap, and rounding them would bias every pixel alike."""
    if not torch.amp.is_autocast_available(device.type):  # the meta device has none
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
