"""Semantic FPN (Kirillov et al., arXiv 1901.02446): the feature pyramid and head that PVTv2 is used with.

Letters: N samples, K classes, s_i the stride of stage i, C_i its width. Convolutions are followed by ReLU in the head,
but not in the pyramid; there is no normalisation. Names are those of mmsegmentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.masks import ChannelDropout


class Convolution(nn.Module):
    """A convolution that keeps the size of its map, initialised as mmcv's ConvModule: by fan-out, biases zero."""

    def __init__(self, in_channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, kernel, padding=kernel // 2)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, h, w) -> (N, width, h, w)."""
        return self.conv(x)


class FeaturePyramid(nn.Module):
    """Top-down sums of the stages at one width (Lin et al., arXiv 1612.03144)."""

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList([Convolution(before, width, 1) for before in widths])
        self.fpn_convs = nn.ModuleList([Convolution(width, width, 3) for _ in widths])

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Stage outputs (N, C_i, H / s_i, W / s_i), shallow first -> the same maps with `width` channels."""
        levels = [lateral(feature) for lateral, feature in zip(self.lateral_convs, features, strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], size=levels[i - 1].shape[2:], mode="nearest")
        return [convolve(level) for convolve, level in zip(self.fpn_convs, levels, strict=True)]


class SemanticHead(nn.Module):
    """Brings every level to stride 4 by alternating convolutions and upsamplings, sums the levels, and classifies.

    Each upsampling goes to the size of the next finer level: a doubling, as published, if sides are multiples of 32.
    The last upsampling, from stride 8 to 4, is linear, so the deeper levels are summed before it: the same function,
    with one upsampling to the largest map instead of three.
    """

    def __init__(self, levels: int, in_channels: int, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        # even names: in the published sequence the odd ones are upsamplings
        self.scale_heads = nn.ModuleList(
            nn.ModuleDict(
                {f"{2 * j}": Convolution(width if j else in_channels, width, 3) for j in range(max(level, 1))}
            )
            for level in range(levels)
        )
        self.activate = nn.ReLU()
        self.dropout = ChannelDropout("dropout", dropout, width)
        self.conv_seg = nn.Conv2d(width, num_classes, 1)

    def forward(self, levels: Sequence[Tensor], masks: Mapping[str, Tensor] | None) -> Tensor:
        """Levels (N, in_channels, H / s_i, W / s_i), shallow first -> logits (N, K, H / 4, W / 4)."""
        finest, *deeper = [self._climb(i, levels) for i in range(len(levels))]
        total = deeper[0]
        for other in deeper[1:]:
            total = total + other
        return self.conv_seg(self.dropout(finest + _upsample(total, finest), masks))

    def _climb(self, i: int, levels: Sequence[Tensor]) -> Tensor:
        """Level i at the size of level 1, or level 0 at its own size: (N, width, h, w)."""
        x = levels[i]
        for j, convolve in enumerate(self.scale_heads[i].children()):
            x = self.activate(convolve(_upsample(x, levels[i - j])))
        return x


def _upsample(x: Tensor, finer: Tensor) -> Tensor:
    """x (N, C, h, w), upsampled to the height and width of `finer`."""
    if x.shape[2:] == finer.shape[2:]:
        return x
    return F.interpolate(x, size=finer.shape[2:], mode="bilinear", align_corners=False)
