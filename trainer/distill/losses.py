"""What the losses of several distillers share: precision, cosine similarities, the logits compared, and distances.

Letters: N samples, C channels, H and W height and width of a feature map, L pixels, K classes that both networks have.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.models.base import SegOutput

LEVELS = (4, 2, 1)
"""Sides of the pooled maps that the hierarchical context loss compares after the full one."""


def full(x: Tensor) -> Tensor:
    """x in float32, or float64 if x is: losses are computed in full precision even from bfloat16 features."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit(x: Tensor) -> Tensor:
    """x (N, C, L) with each pixel's vector divided by its length; a zero vector stays zero."""
    return F.normalize(full(x), dim=1)


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product a @ b outside autocast: in bfloat16 the difference of two similarities would be lost."""
    if a.is_meta:  # the meta device has no autocast
        return a @ b
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def shared_logits(student: SegOutput, teacher: SegOutput) -> tuple[Tensor, Tensor]:
    """The logits (N, K, H/4, W/4) of the first K classes, which both networks have.

    Published teachers also predict void, a 20th class; students of 19 classes do not, so softmax leaves it out.
    """
    assert student.logits is not None and teacher.logits is not None
    classes = min(student.logits.shape[1], teacher.logits.shape[1])
    return student.logits[:, :classes], teacher.logits[:, :classes]


def difference(student: Tensor, teacher: Tensor) -> Tensor:
    """student - teacher in float32, or float64 if the student is."""
    return full(student) - teacher


def mean_square(x: Tensor) -> Tensor:
    """The mean of x squared, a scalar."""
    return _MeanSquare.apply(x)


def mean_squared_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference of student and teacher, of equal shapes: a scalar."""
    return mean_square(difference(student, teacher))


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """Hierarchical context loss of student (N, C, H, W) against teacher (N, C, H, W): a scalar, the mean over samples.

    The mean squared difference at full size and after average pooling to 4x4, 2x2 and 1x1, with weights 1, 1/2, 1/4,
    1/8 divided by their sum. A level that is not smaller than H is left out, and the next takes its weight.
    Source: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021.
    """
    # pooling is linear, so pooling the difference once equals pooling both maps
    whole = difference(student, teacher)
    height, width = whole.shape[-2:]
    loss, weight, total = mean_square(whole), 1.0, 1.0
    pooled, equal_bins = whole, True
    for level in LEVELS:
        if level >= height:
            continue
        # pooling the pooled map is exact only if its bins had equal sizes
        pooled = pool(pooled if equal_bins else whole, level)
        equal_bins = height % level == 0 and width % level == 0
        weight /= 2
        loss = loss + weight * mean_square(pooled)
        total += weight
    return loss / total


def pool(x: Tensor, side: int) -> Tensor:
    """Adaptive average pooling of x (N, C, H, W) to (N, C, side, side).

    Where a GPU must repeat itself it is two matrix products: the gradient of torch's pooling does not, and is refused.
    """
    if not (x.is_cuda and torch.are_deterministic_algorithms_enabled()):
        return F.adaptive_avg_pool2d(x, side)
    return pool_by_products(x, side)


def pool_by_products(x: Tensor, side: int) -> Tensor:
    """The same pooling as products of x with the share that each row and column has in each bin."""
    rows, columns = (F.adaptive_avg_pool1d(torch.eye(n, device=x.device, dtype=x.dtype), side) for n in x.shape[2:])
    return product(product(rows.T, x), columns)


class _MeanSquare(torch.autograd.Function):
    """mean(x ** 2) with a backward of one pass over x, where autograd takes four. (A dot product is less exact.)"""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        # in memory order: reducing a channels-last map directly is several times slower
        channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        return (x.permute(0, 2, 3, 1) if channels_last else x).reshape(-1).square().mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x * (grad * (2 / x.numel()))
