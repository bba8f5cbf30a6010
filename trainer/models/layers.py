"""Layers of hierarchical transformers: patch embedding, efficient attention, Mix-FFN and blocks.

Letters: N samples, L = h * w tokens of a map of h rows and w columns, C channels. Tokens (N, L, C) and channels-last
maps (N, C, h, w) have the same memory layout, so conversion copies nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.masks import StochasticDepth


def to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """A view of tokens (N, L, C) as a channels-last map (N, C, h, w)."""
    return tokens.unflatten(1, size).permute(0, 3, 1, 2)


def to_tokens(image: Tensor) -> Tensor:
    """A map (N, C, h, w) as tokens (N, L, C); a view if the map is channels-last, else a copy."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def init_transformer(module: nn.Module) -> None:
    """SegFormer's encoder initialisation, for `Module.apply`: linear layers with std 0.02, convolutions by fan-out."""
    if isinstance(module, nn.Linear):
        # published: trunc_normal_, whose bounds lie 100 deviations out; torch 2.11 draws other numbers for it than 2.12
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def drop_path_rates(last: float, blocks: int) -> list[float]:
    """One rate a block, rising linearly from 0 to `last` over all stages (Huang et al., ECCV 2016, section 3)."""
    return [last * i / (blocks - 1) for i in range(blocks)]


class PatchEmbed(nn.Module):
    """Overlapping patch embedding: a strided convolution and LayerNorm (SegFormer, section 3.1)."""

    def __init__(self, in_channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """x (N, in_channels, H, W) -> tokens (N, L, width) and their (h, w), each rounded up."""
        tokens, size = self.project(x)
        return self.norm(tokens), size

    def project(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The same before the norm."""
        x = self.proj(x.contiguous(memory_format=torch.channels_last))
        return to_tokens(x), (x.shape[2], x.shape[3])


class Attention(nn.Module):
    """Self-attention whose keys and values are spatially reduced (SegFormer, section 3.1, equation 2)."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """tokens (N, L, C) of a map of `size` -> (N, L, C). Both sides of `size` must be at least `reduction`."""
        reduced = tokens
        if self.reduction > 1:
            reduced = self.norm(to_tokens(self.sr(to_map(tokens, size))))
        query = self.q(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, L, C / heads)
        key, value = self.kv(reduced).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class DepthwiseConv(nn.Module):
    """A 3x3 depthwise convolution over tokens, which replaces position embeddings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """tokens (N, L, C) of a map of `size` -> (N, L, C)."""
        return to_tokens(self.dwconv(to_map(tokens, size)))


class MixFFN(nn.Module):
    """Feed-forward layer with a depthwise convolution inside (SegFormer, section 3.1, equation 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.dwconv = DepthwiseConv(4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """tokens (N, L, C) of a map of `size` -> (N, L, C)."""
        return self.fc2(F.gelu(self.dwconv(self.fc1(tokens), size)))


class Block(nn.Module):
    """A pre-norm transformer block; `name` seeds the masks of its two residual branches."""

    def __init__(self, name: str, width: int, heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MixFFN(width)
        self.drop_attn = StochasticDepth(f"{name}.attn", drop_path)
        self.drop_mlp = StochasticDepth(f"{name}.mlp", drop_path)

    def forward(self, tokens: Tensor, size: tuple[int, int], masks: Mapping[str, Tensor] | None) -> Tensor:
        """tokens (N, L, C) of a map of `size` -> (N, L, C)."""
        tokens = tokens + self.drop_attn(self.attn(self.norm1(tokens), size), masks)
        return tokens + self.drop_mlp(self.mlp(self.norm2(tokens), size), masks)
