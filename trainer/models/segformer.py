"""SegFormer (Xie et al., arXiv 2105.15203): MiT encoder B0..B5 and the all-MLP head, under the official names."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from torch import Tensor, nn

from trainer.models.all_mlp import STAGES, AllMLPNetwork, Geometry
from trainer.models.base import Channels
from trainer.models.layers import Block, PatchEmbed, drop_path_rates, init_transformer, to_map
from trainer.models.masks import MaskDraw
from trainer.models.pyramid import STRIDES

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)

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


class SegFormer(AllMLPNetwork):
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
        rates = iter(drop_path_rates(drop_path, sum(depths)))
        kernels = zip(pairwise((3, *widths)), (7, 3, 3, 3), (4, 2, 2, 2), strict=True)
        for stage, ((before, width), kernel, stride) in zip(STAGES, kernels, strict=True):
            self.add_module(f"patch_embed{stage}", PatchEmbed(before, width, kernel, stride))
        for stage, width, depth, heads, reduction in zip(STAGES, widths, depths, HEADS, REDUCTIONS, strict=True):
            blocks = [Block(f"block{stage}.{i}", width, heads, reduction, next(rates)) for i in range(depth)]
            self.add_module(f"block{stage}", nn.ModuleList(blocks))
            self.add_module(f"norm{stage}", nn.LayerNorm(width, eps=1e-6))
        self.apply(init_transformer)  # before the head, which keeps torch's default initialisation, as in the reference
        self.add_head(widths, head_width, num_classes, dropout)
        self.draw = MaskDraw(self.modules())

    def embed(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """The patch embedding; `embeds` has it after its norm."""
        tokens, size = getattr(self, f"patch_embed{stage + 1}")(x)
        return tokens, tokens, size

    def transform(
        self, stage: int, tokens: Tensor, size: tuple[int, int], masks: Mapping[str, Tensor] | None
    ) -> Tensor:
        """The blocks of a stage and its norm."""
        for block in getattr(self, f"block{stage + 1}"):
            tokens = block(tokens, size, masks)
        return to_map(getattr(self, f"norm{stage + 1}")(tokens), size)
