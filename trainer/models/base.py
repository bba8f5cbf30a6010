"""The interface of all networks: SegModel, its output SegOutput and its geometry Channels.

Letters: N samples, K classes, H and W input height and width, i stage 0..3, C_i its width, s_i its stride.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

LOGITS, FEATURES, EMBEDS = frozenset({"logits"}), frozenset({"features"}), frozenset({"embeds"})
EVERYTHING = LOGITS | FEATURES | EMBEDS

Keys = Tensor | Mapping[str, Tensor]
"""What the masks of dropout and drop-path are made of: the keys (N,) int64 of the samples, or the masks by name where
an equal network has drawn them from the same keys."""


class Channels(NamedTuple):
    """The widths and strides of a network, so that other code does not hard-code them."""

    features: tuple[int, ...]  # C_i of the stage outputs
    embeds: tuple[int, ...]  # width of the patch embeddings
    strides: tuple[int, ...]  # s_i of both
    classes: int  # K
    inputs: int = 3  # C of the image


class SegOutput(NamedTuple):
    """Everything that distillation may read of a network. Parts that were not requested are None or empty.

    All parts have the dtype of the network's parameters. Under autocast they have autocast's dtype, bfloat16, on every
    device: CUDA's autocast would leave what follows a norm in float32, and the CPU's would not.
    """

    logits: Tensor | None  # (N, K, H/4, W/4)
    features: tuple[Tensor, ...]  # stage i: (N, C_i, H/s_i, W/s_i), after the stage's norm
    embeds: tuple[Tensor, ...]  # stage i: (N, H/s_i * W/s_i, C_i), after the patch embedding's norm; LVT's: before


def as_autocast(x: Tensor) -> Tensor:
    """x, in the dtype of autocast where that is enabled. Float64 stays, as in autocast."""
    if x.dtype != torch.float32 or x.is_meta or not torch.is_autocast_enabled(x.device.type):  # meta has no autocast
        return x
    return x.to(torch.get_autocast_dtype(x.device.type))


class SegModel(nn.Module):
    """A segmentation network: `forward(image, keys, needs)` returns a SegOutput."""

    channels: Channels
    head_names: ClassVar[tuple[str, ...]] = ("linear_", "neck.", "head.")
    """How the names of the head's parameters begin; all others are the backbone's."""

    def forward(self, image: Tensor, keys: Keys | None = None, needs: AbstractSet[str] = EVERYTHING) -> SegOutput:
        """image (N, C, H, W) -> SegOutput. `keys` seed the masks of dropout and drop-path in training."""
        raise NotImplementedError
