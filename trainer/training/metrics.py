"""Intersection over union from one int64 confusion matrix over a whole split.

Letters: K classes, P network outputs (P >= K: a void output may be predicted but is never a label).
"""

from __future__ import annotations

import torch
from torch import Tensor


def confusion(prediction: Tensor, label: Tensor, classes: int, outputs: int) -> Tensor:
    """Counts (K, P) int64 of pixels by true class and predicted output; labels >= K are not counted.

    prediction, label: integer tensors of one shape. Ignored pixels are not masked but counted in an extra row.
    """
    row = label.to(torch.int64).clamp(max=classes).flatten()
    index = row * outputs + prediction.to(torch.int64).flatten()
    return torch.bincount(index, minlength=(classes + 1) * outputs).view(classes + 1, outputs)[:classes]


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
