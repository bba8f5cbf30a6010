"""logits_of(): the logits of images as `eval` asks: whole or in sliding windows, mirrored too, at several scales."""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import DataConfig, EvalConfig
from trainer.data.stream import normalise
from trainer.models.base import LOGITS, SegModel

WHOLE = EvalConfig()
"""One pass over the image."""
STRIDE = 4
"""Of logits, in pixels of the input."""
SMALLEST = 32
"""Of a scaled image's sides, in pixels."""

Views = tuple[Tensor, ...]
"""The logits (N, P, h, w) float32 of N images, of each view: the images at one scale, mirrored or not; turned back."""


def logits_of(
    model: SegModel,
    images: np.ndarray,
    data: DataConfig,
    device: torch.device,
    autocast: torch.autocast | None = None,
    how: EvalConfig = WHOLE,
) -> Views:
    """The logits of every view of uint8 images (N, H, W, 3) at a quarter of its size."""
    image = normalise(torch.from_numpy(images).permute(0, 3, 1, 2).to(device), data.normalize)
    with autocast or torch.autocast(device.type, enabled=False):
        return tuple(_view(model, image, how, scale, mirrored) for scale, mirrored in views_of(how))


def views_of(how: EvalConfig) -> list[tuple[float, bool]]:
    """(scale, whether mirrored) of each view."""
    return list(itertools.product(how.scales, (False, True) if how.flip else (False,)))


def _view(model: SegModel, image: Tensor, how: EvalConfig, scale: float, mirrored: bool) -> Tensor:
    seen = resized(image, scale)
    seen = seen.flip(3) if mirrored else seen
    found = in_windows(model, seen, how.window, how.stride) if how.window and how.stride else _whole(model, seen)
    return found.flip(3) if mirrored else found


def resized(image: Tensor, scale: float) -> Tensor:
    """image (N, 3, H, W) with both sides times `scale`, rounded to multiples of 4, at least 32; antialiased, as images
    are resized for training."""
    size = tuple(max(SMALLEST, round(side * scale / STRIDE) * STRIDE) for side in image.shape[2:])
    if size == image.shape[2:]:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)


def in_windows(model: SegModel, image: Tensor, window: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Logits (N, P, H/4, W/4) of image (N, 3, H, W): the mean over the windows that cover a position.

    Source: mmsegmentation's slide_inference (mmseg/models/segmentors/encoder_decoder.py), which averages after
    upsampling. Windows in the last row and column end at the border; one that is larger than the image is cut to it.
    """
    height, width = image.shape[2:]
    shape = (height // STRIDE, width // STRIDE)
    total = torch.zeros(len(image), model.channels.classes, *shape, device=image.device)
    counts = torch.zeros(shape, device=image.device)
    for top, left in itertools.product(starts(height, window[0], stride[0]), starts(width, window[1], stride[1])):
        logits = _whole(model, image[:, :, top : top + window[0], left : left + window[1]])
        rows = slice(top // STRIDE, top // STRIDE + logits.shape[2])
        columns = slice(left // STRIDE, left // STRIDE + logits.shape[3])
        total[:, :, rows, columns] += logits
        counts[rows, columns] += 1
    return total / counts


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin on an axis of `length` pixels: every `stride`, the last so that it ends at the border."""
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


def _whole(model: SegModel, image: Tensor) -> Tensor:
    logits = model(image, None, LOGITS).logits
    assert logits is not None
    return logits.float()
