"""PVTv2 (Wang et al., arXiv 2106.13797) B0..B5: timm's encoder with the semantic-FPN head.

Parameters are named `backbone.` + timm's name, `neck.` and `head.`; the head has the same widths for all six sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainer.models.base import Channels
from trainer.models.fpn import FeaturePyramid, SemanticHead
from trainer.models.layers import drop_path_rates, to_map
from trainer.models.masks import MaskDraw, StochasticDepth
from trainer.models.pyramid import STRIDES, Pyramid


class Variant(NamedTuple):
    """A network: timm's encoder, changes of its arguments, and the widths of pyramid and head."""

    encoder: str
    changes: Mapping[str, Any] = {}
    pyramid_width: int = 256
    head_width: int = 128


VARIANTS = {
    "pvtv2_mini": Variant("pvt_v2_b0", {"embed_dims": (16, 32, 80, 128), "depths": (1, 1, 1, 1)}, 64, 64),
    **{f"pvtv2_b{i}": Variant(f"pvt_v2_b{i}") for i in range(6)},
}


class PVTv2(Pyramid):
    """timm's encoder of overlapping patch embeddings and spatially reduced attention, and a semantic-FPN head."""

    def __init__(
        self,
        num_classes: int,
        drop_path: float = 0.1,
        dropout: float = 0.1,
        *,
        variant: Variant = VARIANTS["pvtv2_b0"],
    ) -> None:
        super().__init__()
        import timm  # takes seconds, so only when PVTv2 is built

        self.backbone = timm.create_model(variant.encoder, num_classes=0, **variant.changes)
        blocks = [(s, i, block) for s, stage in enumerate(self.backbone.stages) for i, block in enumerate(stage.blocks)]
        for (stage, i, block), rate in zip(blocks, drop_path_rates(drop_path, len(blocks)), strict=True):
            block.drop_path1 = StochasticDepth(f"block{stage + 1}.{i}.attn", rate)
            block.drop_path2 = StochasticDepth(f"block{stage + 1}.{i}.mlp", rate)
        widths = tuple(stage["num_chs"] for stage in self.backbone.feature_info)
        self.channels = Channels(widths, widths, STRIDES, num_classes)
        self.neck = FeaturePyramid(widths, variant.pyramid_width)
        self.head = SemanticHead(len(widths), variant.pyramid_width, variant.head_width, num_classes, dropout)
        self.draw = MaskDraw(self.modules())

    def embed(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """The patch embedding; `embeds` has it after its norm."""
        patch_embed = self.backbone.stages[stage].downsample if stage else self.backbone.patch_embed
        image = patch_embed(x.contiguous(memory_format=torch.channels_last))  # (N, h, w, C)
        tokens = image.flatten(1, 2)
        return tokens, tokens, (image.shape[1], image.shape[2])

    def transform(
        self, stage: int, tokens: Tensor, size: tuple[int, int], masks: Mapping[str, Tensor] | None
    ) -> Tensor:
        """The blocks of a stage and its norm. timm's own forward cannot pass masks."""
        for block in self.backbone.stages[stage].blocks:
            tokens = tokens + block.drop_path1(block.attn(block.norm1(tokens), size), masks)
            tokens = tokens + block.drop_path2(block.mlp(block.norm2(tokens), size), masks)
        return to_map(self.backbone.stages[stage].norm(tokens), size)

    def decode(self, features: list[Tensor], masks: Mapping[str, Tensor] | None) -> Tensor:
        """The four stages' outputs, shallow first -> logits (N, K, H / 4, W / 4)."""
        return self.head(self.neck(features), masks)
