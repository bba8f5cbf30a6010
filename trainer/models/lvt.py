"""LVT (Lite Vision Transformer, Yang et al., arXiv 2112.10809) with the all-MLP head: a student of TransKD."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.all_mlp import AllMLPNetwork, Geometry
from trainer.models.base import Channels
from trainer.models.layers import PatchEmbed, drop_path_rates, init_transformer, to_map, to_tokens
from trainer.models.lvt_attention import ConvolutionalSelfAttention, RecursiveAtrousAttention
from trainer.models.masks import MaskDraw, StochasticDepth
from trainer.models.pyramid import STRIDES

HEADS = (2, 2, 5, 8)
RATIOS = (4, 8, 4, 4)
REDUCTIONS = (1, 4, 2, 1)  # used by stages 2 to 4; the first has convolutional attention

GEOMETRIES = {
    "lvt_mini": Geometry((16, 16, 40, 64), (1, 1, 1, 1), 64),
    "lvt": Geometry((64, 64, 160, 256), (2, 2, 2, 2), 256),
}


class FeedForward(nn.Module):
    """Two linear layers, used in the first stage, whose attention already includes a convolution."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """tokens (N, L, C) -> (N, L, C), for any size of their map."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class ConvFeedForward(nn.Module):
    """A feed-forward layer of 1x1 convolutions with a 3x3 depthwise one between them."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, ratio * width, 1)
        self.depconv = nn.Conv2d(ratio * width, ratio * width, 3, padding=1, groups=ratio * width)
        self.fc2 = nn.Conv2d(ratio * width, width, 1)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """tokens (N, L, C) of a map of `size` -> (N, L, C)."""
        return to_tokens(self.fc2(F.gelu(self.depconv(self.fc1(to_map(tokens, size))))))


class Block(nn.Module):
    """A pre-norm block of `stage` 0..3; `name` seeds the masks of its two residual branches."""

    def __init__(self, name: str, stage: int, width: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn: nn.Module
        self.mlp: nn.Module
        if stage == 0:
            self.attn = ConvolutionalSelfAttention(width, HEADS[stage])
        else:
            self.attn = RecursiveAtrousAttention(width, HEADS[stage], REDUCTIONS[stage]).apply(init_transformer)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = (ConvFeedForward if stage else FeedForward)(width, RATIOS[stage])
        self.drop_attn = StochasticDepth(f"{name}.attn", drop_path)
        self.drop_mlp = StochasticDepth(f"{name}.mlp", drop_path)

    def forward(self, tokens: Tensor, size: tuple[int, int], masks: Mapping[str, Tensor] | None) -> Tensor:
        """tokens (N, L, C) of a map of `size` -> (N, L, C)."""
        tokens = tokens + self.drop_attn(self.attn(self.norm1(tokens), size), masks)
        return tokens + self.drop_mlp(self.mlp(self.norm2(tokens), size), masks)


class LiteVisionTransformer(AllMLPNetwork):
    """Convolutional self-attention in the first stage, recursive atrous in the others; stages end without a norm."""

    def __init__(
        self,
        num_classes: int,
        drop_path: float = 0.1,
        dropout: float = 0.1,
        *,
        geometry: Geometry = GEOMETRIES["lvt"],
    ) -> None:
        super().__init__()
        widths, depths, head_width = geometry
        self.channels = Channels(widths, widths, STRIDES, num_classes)
        rates = iter(drop_path_rates(drop_path, sum(depths)))
        self.backbone = nn.ModuleList()
        for stage, ((before, width), depth) in enumerate(zip(pairwise((3, *widths)), depths, strict=True)):
            patch_embed = PatchEmbed(before, width, 3 if stage else 7, 2 if stage else 4)
            blocks = [Block(f"block{stage + 1}.{i}", stage, width, next(rates)) for i in range(depth)]
            self.backbone.append(nn.ModuleList([patch_embed.apply(init_transformer), nn.ModuleList(blocks)]))
        self.add_head(widths, head_width, num_classes, dropout)
        self.draw = MaskDraw(self.modules())
        for module in self.modules():  # also those of the head, as in the reference
            if isinstance(module, nn.Linear):
                init_transformer(module)

    def embed(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """The patch embedding; `embeds` has it before its norm, as the reference does for this network only."""
        patch_embed = self.get_submodule(f"backbone.{stage}.0")
        assert isinstance(patch_embed, PatchEmbed)
        tokens, size = patch_embed.project(x)
        return tokens, patch_embed.norm(tokens), size

    def transform(
        self, stage: int, tokens: Tensor, size: tuple[int, int], masks: Mapping[str, Tensor] | None
    ) -> Tensor:
        """The blocks of a stage."""
        for block in self.get_submodule(f"backbone.{stage}.1").children():
            tokens = block(tokens, size, masks)
        return to_map(tokens, size)
