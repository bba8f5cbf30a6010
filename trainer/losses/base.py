"""TaskLoss: the base class of losses between a student's logits and the labels."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import UserError


class TaskLoss(nn.Module):
    """A loss without parameters. Its weight is applied by Learner.

    A subclass takes its options as keyword arguments and raises UserError for those that it does not support.
    """

    per: ClassVar[Literal["pixel", "image"]] = "pixel"
    """What the loss is a sum over, so that it does not depend on micro-batches and workers: labelled pixels, each times
    the weight of its class, or images."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, logits: Tensor, label: Tensor, weights: Tensor | None) -> Tensor:
        """The sum, a scalar, of logits (N, P, H, W) and label (N, H, W), with `IGNORE` at pixels without a class.

        `weights` (P,) are those of `data.class_weights`. Without a labelled pixel the result is 0, with a graph.
        """
        raise NotImplementedError


def at_label_size(logits: Tensor, label: Tensor) -> Tensor:
    """Logits (N, P, h, w) in float32, or float64 as they are, upsampled bilinearly to the size of label (N, H, W)."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if logits.shape[-2:] == label.shape[-2:]:
        return logits
    return F.interpolate(logits, size=label.shape[-2:], mode="bilinear", align_corners=False)


def number_in(name: str, value: object, least: float, most: float) -> float:
    """An option as a float. Raises UserError unless it is a number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UserError(f"{name} must be a number from {least:g} to {most:g}, but got {value!r}")
    return float(value)
