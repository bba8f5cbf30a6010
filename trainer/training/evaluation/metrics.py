"""Intersection over union from one int64 confusion matrix over a whole split.

Letters: G groups of images, K classes, P network outputs (P >= K: a void output may be predicted but is never a label).
"""

from __future__ import annotations

import torch
from torch import Tensor


def confusion(prediction: Tensor, label: Tensor, classes: int, outputs: int) -> Tensor:
    """Counts (K, P) int64 of pixels by true class and predicted output; labels >= K are not counted.

    prediction, label: integer tensors of one shape. Ignored pixels are not masked but counted in an extra row.
    """
    one = torch.zeros(1, dtype=torch.int64, device=label.device)
    return confusion_by_group(prediction[None], label[None], one, (1, classes, outputs))[0]


def confusion_by_group(prediction: Tensor, label: Tensor, group: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """`confusion` of the images of each group: counts `shape` = (G, K, P) int64.

    prediction, label: (N, ...); group: (N,), in 0..G-1. Counted in int32, which takes half the time of int64.
    """
    groups, classes, outputs = shape
    row = label.clamp(max=classes).to(torch.int32)
    row += (group.to(torch.int32) * (classes + 1)).view(-1, *[1] * (label.ndim - 1))
    index = row.mul_(outputs).add_(prediction)
    counts = torch.bincount(index.flatten(), minlength=groups * (classes + 1) * outputs)
    return counts.view(groups, classes + 1, outputs)[:, :classes]


def iou(matrix: Tensor) -> Tensor:
    """IoU (K,) float64 in 0..1 of a confusion matrix (K, P); NaN for a class neither present nor predicted."""
    k = len(matrix)
    hit = matrix.diagonal().double()
    union = matrix.sum(1).double() + matrix[:, :k].sum(0).double() - hit
    return torch.where(union > 0, hit / union, torch.nan)


def summary(matrix: Tensor, names: tuple[str, ...], prefix: str, absent_is_zero: bool) -> dict[str, float]:
    """`<prefix>/miou`, `<prefix>/iou/<class>` in percent and `<prefix>/classes_present`.

    A class without pixels in the labels is left out of the mean; with `absent_is_zero` it counts as 0, as in the
    published code. Where no pixel is labelled there is no mean, and no `<prefix>/miou`.
    """
    present = matrix.sum(1) > 0
    values = iou(matrix) * 100
    counted = torch.where(present, values, 0.0) if absent_is_zero else values[present]
    result = {f"{prefix}/miou": float(counted.mean())} if present.any() else {}
    result |= {f"{prefix}/iou/{name}": float(v) for name, v, p in zip(names, values, present, strict=True) if p}
    return result | {f"{prefix}/classes_present": float(present.sum())}
