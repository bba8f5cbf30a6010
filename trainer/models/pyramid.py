"""Pyramid: the forward pass that all our networks share: four stages (patch embedding, blocks), then a head."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from torch import Tensor

from trainer.models.base import EVERYTHING, Keys, SegModel, SegOutput, as_autocast
from trainer.models.masks import MaskDraw

STRIDES = (4, 8, 16, 32)


class Pyramid(SegModel):
    """A hierarchical transformer. A subclass implements `embed`, `transform` and `decode`, and builds `draw`."""

    draw: MaskDraw

    def embed(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """x, the image or the map before `stage` (0..3) -> the patch embedding for `embeds` (N, L, C), the tokens
        (N, L, C) that the blocks read, and their (h, w)."""
        raise NotImplementedError

    def transform(
        self, stage: int, tokens: Tensor, size: tuple[int, int], masks: Mapping[str, Tensor] | None
    ) -> Tensor:
        """Tokens (N, L, C) of a map of `size` -> the stage's output, a map (N, C, h, w).

        `masks` are those of dropout and drop-path by name; None where nothing is dropped."""
        raise NotImplementedError

    def decode(self, features: list[Tensor], masks: Mapping[str, Tensor] | None) -> Tensor:
        """The four stages' outputs, shallow first -> logits (N, K, H / 4, W / 4)."""
        raise NotImplementedError

    def forward(self, image: Tensor, keys: Keys | None = None, needs: AbstractSet[str] = EVERYTHING) -> SegOutput:
        """image (N, 3, H, W), H and W at least 32 and multiples of 4 -> SegOutput.

        Stages have ceil(H / s_i) rows. Parts not in `needs` are computed only if others need them.
        """
        features: list[Tensor] = []
        embeds: list[Tensor] = []
        x = image
        masks = self.draw(keys)
        last = len(STRIDES) - 1
        for stage in range(len(STRIDES)):
            embed, tokens, size = self.embed(stage, x)
            embeds.append(embed)
            if stage == last and not needs & {"features", "logits"}:
                break
            x = self.transform(stage, tokens, size, masks)
            features.append(x)
        return SegOutput(
            self.decode(features, masks) if "logits" in needs else None,
            tuple(map(as_autocast, features)) if "features" in needs else (),
            tuple(map(as_autocast, embeds)) if "embeds" in needs else (),
        )
