"""The two attentions of the Lite Vision Transformer (Yang et al., arXiv 2112.10809): CSA and RASA.

Letters: N samples, L = h * w tokens of a map of h rows and w columns, C channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.layers import to_map, to_tokens

KERNEL, STRIDE = 3, 2
PLACES = KERNEL * KERNEL
DILATIONS = (1, 3, 5)


class ConvolutionalSelfAttention(nn.Module):
    """Attention within 3x3 windows at stride 2; results are summed where windows overlap (CSA, section 3.1).

    A window's attention weights, a 9 x 9 matrix per head, are a linear function of its mean over 2x2 pixels. Each of
    its nine positions has its own linear map for values.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.attn = nn.Linear(width, heads * PLACES**2)
        self.pool = nn.AvgPool2d(STRIDE, STRIDE, ceil_mode=True)
        self.weight = nn.Conv2d(PLACES * width, PLACES * width, 1, groups=PLACES, bias=False)
        self.proj = nn.Linear(width, width)
        nn.init.normal_(self.weight.weight, std=math.sqrt(2.0 / (PLACES * width)))  # as published: groups not counted

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """tokens (N, L, C) of a map of `size` -> (N, L, C). There are M windows: half of each side, rounded up."""
        means = to_tokens(self.pool(to_map(tokens, size)))  # (N, M, C)
        scores = self.attn(means).unflatten(2, (self.heads, PLACES, PLACES)) * self.scale
        values = to_tokens(self.weight(_windows(tokens.unflatten(1, size))))  # (N, M, 9 C)
        values = values.unflatten(2, (PLACES, self.heads, -1)).transpose(2, 3)  # (N, M, heads, 9, C / heads)
        mixed = (scores.softmax(-1) @ values).transpose(2, 3).flatten(3)  # (N, M, 9, C)
        return self.proj(_sum_windows(mixed, size))


def _windows(image: Tensor) -> Tensor:
    """(N, h, w, C) -> the nine positions of every window, as a map of 9 C channels."""
    rows, columns = (STRIDE * math.ceil(side / STRIDE) for side in image.shape[1:3])
    padded = F.pad(image, (0, 0, 1, 1, 1, 1))
    places = [padded[:, y : y + rows : STRIDE, x : x + columns : STRIDE] for y in range(KERNEL) for x in range(KERNEL)]
    return torch.cat(places, 3).permute(0, 3, 1, 2)


def _sum_windows(mixed: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, M, 9, C) -> tokens (N, L, C): for every pixel the sum over the windows that cover it.

    The same as `F.fold`, but channels last, and twice as fast.
    """
    rows, columns = size
    windows = mixed.unflatten(1, (math.ceil(rows / STRIDE), -1)).unflatten(3, (KERNEL, KERNEL))  # (N, r, c, 3, 3, C)
    stripes = _interleave(windows, 1, rows)  # (N, h, c, 3, C)
    return _interleave(stripes, 2, columns).flatten(1, 2)


def _interleave(windows: Tensor, axis: int, length: int) -> Tensor:
    """Sum windows along `axis`, with their three positions along axis 3, into `length` pixels along `axis`.

    Window i covers pixels 2i - 1, 2i and 2i + 1: an even pixel lies in one window, an odd one in two.
    """
    before, centre, after = windows.unbind(3)
    following = torch.cat(
        [before.narrow(axis, 1, before.shape[axis] - 1), torch.zeros_like(before.narrow(axis, 0, 1))], axis
    )
    pixels = torch.stack([centre, after + following], axis + 1).flatten(axis, axis + 1)
    return pixels.narrow(axis, 0, length)


class AtrousConv(nn.Module):
    """One 3x3 depthwise convolution applied at three dilations, with SiLU after each, summed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, 1, 3, 3))
        nn.init.kaiming_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, h, w) -> the same shape."""
        width = len(self.weight)
        maps = [F.silu(F.conv2d(x, self.weight, padding=d, dilation=d, groups=width)) for d in DILATIONS]
        return maps[0] + maps[1] + maps[2]

    def paper_macs(self, inputs: tuple[Tensor], output: Tensor) -> int:
        """MACs of the three convolutions, which are functional calls that hooks do not see."""
        return len(DILATIONS) * output.numel() * self.weight[0].numel()


class RecursiveAtrousAttention(nn.Module):
    """Spatially reduced attention with queries of three scales, applied twice with shared weights (RASA, section 3.2).

    The second input is the first input plus the first output.
    """

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width)
        self.ds = AtrousConv(width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """tokens (N, L, C) of a map of `size` -> (N, L, C). Both sides of `size` must be at least `reduction`."""
        once = F.silu(self._attend(tokens, size))
        return F.silu(self._attend(tokens + once, size))

    def _attend(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        reduced = tokens
        if self.reduction > 1:
            reduced = self.norm(to_tokens(self.sr(to_map(tokens, size))))
        queries = to_tokens(self.ds(to_map(self.q(tokens), size)))
        query = queries.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, L, C / heads)
        key, value = self.kv(reduced).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))
