"""The distances that knowledge paths share: mean squared difference and the hierarchical context loss.

Letters: N samples, C channels, H and W height and width of a feature map.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = (4, 2, 1)
"""Sides of the pooled maps that the hierarchical context loss compares after the full one."""


def difference(student: Tensor, teacher: Tensor) -> Tensor:
    """student - teacher in float32, or float64 if the student is: bfloat16 inputs do not make a bfloat16 loss."""
    return student.to(torch.promote_types(student.dtype, torch.float32)) - teacher


def mean_square(x: Tensor) -> Tensor:
    """The mean of x squared, a scalar."""
    return _MeanSquare.apply(x)


def mean_squared_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference of student and teacher, of equal shapes: a scalar."""
    return mean_square(difference(student, teacher))


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """Hierarchical context loss of student (N, C, H, W) against teacher (N, C, H, W): a scalar, the mean over samples.

    The mean squared difference at full size and after average pooling to 4x4, 2x2 and 1x1, weighted 1, 1/2, 1/4, 1/8
    over the sum of the weights. A level that is not smaller than H is left out, and the next takes its weight.
    Source: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021.
    """
    # pooling is linear, so the difference is pooled once in place of both maps
    full = difference(student, teacher)
    height, width = full.shape[-2:]
    loss, weight, total = mean_square(full), 1.0, 1.0
    pooled, equal_bins = full, True
    for level in LEVELS:
        if level >= height:
            continue
        # the mean of means is the mean only where all bins were equally large
        pooled = F.adaptive_avg_pool2d(pooled if equal_bins else full, level)
        equal_bins = height % level == 0 and width % level == 0
        weight /= 2
        loss = loss + weight * mean_square(pooled)
        total += weight
    return loss / total


class _MeanSquare(torch.autograd.Function):
    """mean(x ** 2) with one pass over x backward; autograd's own takes four, and a dot product sums too coarsely."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        # in the order of memory: a reduction over a channels-last map is several times slower than over its elements
        channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        return (x.permute(0, 2, 3, 1) if channels_last else x).reshape(-1).square().mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x * (grad * (2 / x.numel()))
