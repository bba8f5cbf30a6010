"""output_flaw(): what is wrong with the output of a network, held against the geometry that it states."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from torch import Tensor

from trainer.models.base import EVERYTHING, SegModel, SegOutput
from trainer.models.pyramid import STRIDES


def output_flaw(output: Any, model: SegModel, image: Tensor, classes: int, needs: AbstractSet[str] = EVERYTHING) -> str:
    """What is wrong with the output of `model` on `image` (N, C, H, W), "" where nothing is. Only `needs` is looked at.

    It has logits of K `classes` at a quarter of the image, and four stages with the widths and strides of `channels`.
    """
    channels = model.channels
    if not isinstance(output, SegOutput):
        return f"forward must return a SegOutput (trainer.models.base), but returned {type(output).__name__}"
    if channels.classes != classes:
        return f"channels.classes is {channels.classes} of a network of {classes} classes"
    if channels.strides != STRIDES:
        return f"the strides of its stages must be {STRIDES}, but are {channels.strides}"
    if len(channels.features) != len(STRIDES) or len(channels.embeds) not in (0, len(STRIDES)):
        return f"channels must name {len(STRIDES)} stages, but names {channels.features} and {channels.embeds}"
    n, _, height, width = image.shape
    expected: list[tuple[str, Any, tuple[int, ...]]] = []
    if "logits" in needs:
        expected.append(("logits", output.logits, (n, classes, height // 4, width // 4)))
    for i, stride in enumerate(STRIDES):
        h, w = -(-height // stride), -(-width // stride)
        if "features" in needs:
            expected.append((f"features of stage {i + 1}", _at(output.features, i), (n, channels.features[i], h, w)))
        if "embeds" in needs and channels.embeds:
            expected.append((f"embeds of stage {i + 1}", _at(output.embeds, i), (n, h * w, channels.embeds[i])))
    for what, part, shape in expected:
        got = tuple(part.shape) if isinstance(part, Tensor) else part
        if got != shape:
            return f"of an image of {height}x{width} the {what} must have shape {shape}, but have {got}"
    return ""


def _at(parts: Any, i: int) -> Any:
    return parts[i] if isinstance(parts, tuple | list) and i < len(parts) else None
