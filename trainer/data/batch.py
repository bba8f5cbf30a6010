"""Batch: what the data stream hands to a training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """N samples. The image is float, normalised; the label is `IGNORE` (255) at pixels without a class."""

    image: Tensor  # (N, 3, H, W) float32
    label: Tensor  # (N, H, W), or (N, H/4, W/4) with quarter labels, int64
    keys: Tensor | Mapping[str, Tensor]  # (N,) int64: 64 bits of (seed, epoch, sample); or the masks drawn from them
