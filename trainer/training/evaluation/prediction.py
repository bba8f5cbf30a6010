"""class_of(): the predicted class of every pixel, from logits at a quarter of the input, of one view or of several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

AT_ONCE = {"cpu": 2**22, "cuda": 2**28}
"""Upsampled logits in memory at once: 16 MB, which the caches of a CPU can hold, and 1 GB."""

_WIDE = 128
"""From this width on torch upsamples a strip with the kernel that it takes for the whole image, which rounds alike
(`_use_vectorized_kernel_cond_2d` in its UpSampleKernel.cpp)."""


def class_of(views: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
    """The class (N, H, W) int64 of every pixel of N images, from the logits (N, P, h, w) of each view of them.

    Of one view the argmax of its logits; of several that of their mean probabilities, as mmsegmentation averages them
    (SegTTAModel in mmseg/models/segmentors/seg_tta.py): each upsampled to `size` (H, W) and then its softmax.
    """
    if len(views) == 1:
        return class_of_logits(views[0], size)
    images = zip(*(logits.split(1) for logits in views), strict=True)
    return torch.cat([_first_largest(_mean_probability(image, size)) for image in images])


def _mean_probability(views: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
    """(1, P, H, W) of the views of one image."""
    total = _upsampled(views[0], size).softmax(1)
    for logits in views[1:]:
        total += _upsampled(logits, size).softmax(1)
    return total / len(views)


def class_of_logits(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """The argmax (N, H, W) int64 of logits (N, P, h, w) that are upsampled bilinearly to `size` (H, W).

    Bit for bit what upsampling each image whole gives. As much is upsampled at once as `AT_ONCE` says: several images,
    or a strip of one where that is exact, or one image.
    """
    if logits.shape[2:] == size:
        return _first_largest(logits)
    most = AT_ONCE.get(logits.device.type, 2**22)
    image = logits.shape[1] * size[0] * size[1]
    if image > most and _strips_are_exact(logits, size):
        rows = max(2, most * logits.shape[2] // image)
        return torch.cat([_in_strips(one, size, rows) for one in logits.split(1)])
    parts = logits.split(max(1, most // image))
    return torch.cat([_first_largest(_upsampled(part, size)) for part in parts])


def _strips_are_exact(logits: Tensor, size: tuple[int, ...]) -> bool:
    """Whether a row of the result is the same from a few rows of logits as from all: its position in them is computed
    in float32, without rounding only where H / h is a power of two."""
    factor, rest = divmod(size[0], logits.shape[2])
    return rest == 0 and factor & (factor - 1) == 0 and size[1] >= _WIDE


def _in_strips(logits: Tensor, size: tuple[int, ...], rows: int) -> Tensor:
    """`class_of_logits` of (1, P, h, w) by strips of `rows` of their rows, each upsampled with the rows beside it."""
    height = logits.shape[2]
    factor = size[0] // height
    found = torch.empty((1, *size), dtype=torch.int64, device=logits.device)
    for first in range(0, height, rows):
        end = min(first + rows, height)
        above, below = max(first - 1, 0), min(end + 1, height)
        strip = _upsampled(logits[:, :, above:below], ((below - above) * factor, size[1]))
        inner = strip[:, :, (first - above) * factor : (end - above) * factor]
        found[:, first * factor : end * factor] = _first_largest(inner)
    return found


def _upsampled(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _first_largest(values: Tensor) -> Tensor:
    """`values.argmax(1)`, which takes two to four times as long on a CPU."""
    return values.max(1).indices
