"""SegFormer (Xie et al., arXiv 2105.15203): MiT encoder B0..B5 and the all-MLP head, under the official names."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.base import EVERYTHING, Channels, SegModel, SegOutput
from trainer.models.layers import Block, ChannelDropout, PatchEmbed, init_transformer, to_map, to_tokens
from trainer.norm import GroupedBatchNorm2d

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
STRIDES = (4, 8, 16, 32)
STAGES = (1, 2, 3, 4)


class Geometry(NamedTuple):
    """What tells one size of the family from another."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    head_width: int


_B0, _B1 = (32, 64, 160, 256), (64, 128, 320, 512)
GEOMETRIES = {
    "segformer_tiny": Geometry((8, 16, 20, 32), (1, 2, 1, 1), 16),
    "segformer_mini": Geometry((16, 32, 80, 128), (1, 1, 1, 1), 128),
    "segformer_b0": Geometry(_B0, (2, 2, 2, 2), 256),
    "segformer_b1": Geometry(_B1, (2, 2, 2, 2), 256),
    "segformer_b2": Geometry(_B1, (3, 4, 6, 3), 768),
    "segformer_b3": Geometry(_B1, (3, 4, 18, 3), 768),
    "segformer_b4": Geometry(_B1, (3, 8, 27, 3), 768),
    "segformer_b5": Geometry(_B1, (3, 6, 40, 3), 768),
}


class Projection(nn.Module):
    """The linear layer that brings one stage to the width of the head. It is read by the fusion, never called."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, head_width)


class FoldedFusion(nn.Module):
    """Projects the stages and fuses them at stride 4, as a sum of small products instead of one large convolution.

    The published head projects each stage, upsamples all to stride 4, concatenates (deepest first) and convolves 1x1.
    Up to BatchNorm that is linear, and bilinear upsampling commutes with maps over channels and keeps constants, so
    each stage is multiplied by (its slice of the convolution x its projection) at its own resolution, then upsampled
    and summed.
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
        """A weight (width, C_i) for each stage and their common bias (width,), at least in float32."""
        dtype = torch.promote_types(self.conv.weight.dtype, torch.float32)
        with _no_autocast(self.conv.weight.device):
            slices = self.conv.weight.flatten(1).to(dtype).chunk(len(STAGES), dim=1)[::-1]
            pairs = list(zip(slices, projections, strict=True))
            weights = [part @ projection.weight.to(dtype) for part, projection in pairs]
            biases = [part @ projection.bias.to(dtype) for part, projection in pairs]
        return weights, torch.stack(biases).sum(0)

    def paper_macs(self, inputs: tuple[Sequence[Tensor], Sequence[nn.Linear]], output: Tensor) -> int:
        """MACs of the published arrangement of what the fold replaces: the projections and the convolution."""
        features, projections = inputs
        projected = sum(f[:, 0].numel() * p.weight.numel() for f, p in zip(features, projections, strict=True))
        return projected + output[:, 0].numel() * self.conv.weight.numel()


class SegFormer(SegModel):
    """MiT and the all-MLP head in one module, as in the weights published for TransKD."""

    def __init__(
        self,
        num_classes: int,
        drop_path: float = 0.1,
        dropout: float = 0.1,
        *,
        geometry: Geometry = GEOMETRIES["segformer_b0"],
    ) -> None:
        super().__init__()
        widths, depths, head_width = geometry
        self.channels = Channels(widths, widths, STRIDES, num_classes)
        rates = iter([drop_path * i / (sum(depths) - 1) for i in range(sum(depths))])
        kernels = zip(pairwise((3, *widths)), (7, 3, 3, 3), (4, 2, 2, 2), strict=True)
        for stage, ((before, width), kernel, stride) in zip(STAGES, kernels, strict=True):
            self.add_module(f"patch_embed{stage}", PatchEmbed(before, width, kernel, stride))
        for stage, width, depth, heads, reduction in zip(STAGES, widths, depths, HEADS, REDUCTIONS, strict=True):
            blocks = [Block(f"block{stage}.{i}", width, heads, reduction, next(rates)) for i in range(depth)]
            self.add_module(f"block{stage}", nn.ModuleList(blocks))
            self.add_module(f"norm{stage}", nn.LayerNorm(width, eps=1e-6))
        self.apply(init_transformer)  # before the head is made: the reference leaves that to its layers' defaults
        for stage, width in zip(STAGES[::-1], widths[::-1], strict=True):
            self.add_module(f"linear_c{stage}", Projection(width, head_width))
        self.linear_fuse = FoldedFusion(head_width)
        self.dropout = ChannelDropout("dropout", dropout)
        self.linear_pred = nn.Conv2d(head_width, num_classes, 1)

    def forward(self, image: Tensor, keys: Tensor | None = None, needs: AbstractSet[str] = EVERYTHING) -> SegOutput:
        """image (N, 3, H, W), H and W at least 32 and multiples of 4 -> SegOutput; keys (N,) int64.

        Stages have ceil(H / s_i) rows. Parts outside `needs` are not computed where nothing else depends on them.
        """
        features: list[Tensor] = []
        embeds: list[Tensor] = []
        x = image
        for stage in STAGES:
            tokens, size = getattr(self, f"patch_embed{stage}")(x)
            embeds.append(tokens)
            if stage == STAGES[-1] and not needs & {"features", "logits"}:
                break
            for block in getattr(self, f"block{stage}"):
                tokens = block(tokens, size, keys)
            x = to_map(getattr(self, f"norm{stage}")(tokens), size)
            features.append(x)
        return SegOutput(
            self._decode(features, keys) if "logits" in needs else None,
            tuple(features) if "features" in needs else (),
            tuple(embeds) if "embeds" in needs else (),
        )

    def _decode(self, features: list[Tensor], keys: Tensor | None) -> Tensor:
        projections = [getattr(self, f"linear_c{stage}").proj for stage in STAGES]
        return self.linear_pred(self.dropout(self.linear_fuse(features, projections), keys))


def _multiply(feature: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear map over the channels of a channels-last map (N, C, h, w)."""
    bias = None if bias is None else bias.to(feature.dtype)
    product = F.linear(to_tokens(feature), weight.to(feature.dtype), bias)
    return to_map(product, (feature.shape[2], feature.shape[3]))


def _no_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Products of weights keep their precision: they are tiny, and their rounding would be the same at every pixel."""
    if not torch.amp.is_autocast_available(device.type):  # the meta device has none
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
