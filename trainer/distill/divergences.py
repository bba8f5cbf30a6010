"""Distances between softmax distributions: over the channels of each pixel, or over the positions of each channel.

All are means over distributions times the temperature squared, which keeps gradients comparable across temperatures
(Hinton et al., arXiv 1503.02531, section 2).
Letters: N samples, C channels, H and W height and width, T the temperature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from trainer.config import UserError
from trainer.distill.losses import full
from trainer.distill.stages import check_choice, check_positive


def pixel_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of softmax over the channels of (N, C, H, W): a scalar, the mean over N H W pixels."""
    return divergence(student, teacher, 1, temperature)


def channel_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of softmax over the positions of (N, C, H, W): a scalar, the mean over N C channels.

    Source: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021.
    """
    return divergence(student.flatten(2), teacher.flatten(2), 2, temperature)


def channel_square(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Squared distance of softmax over the positions of (N, C, H, W): a scalar, the mean over N C channels."""
    ours, theirs = ((full(x) / temperature).flatten(2).softmax(2) for x in (student, teacher))
    return (ours - theirs).square().sum(2).mean() * temperature**2


def divergence(student: Tensor, teacher: Tensor, dim: int, temperature: float) -> Tensor:
    """KL(teacher || student) of softmax(x / T) along `dim` of equal shapes: a scalar, the mean over distributions.

    Computed with log_softmax: the published `softmax().log()` is infinite where a probability rounds to 0.
    """
    if student.stride(1) == 1:  # channels last: softmax over the last axis in memory is twice as fast
        student, teacher = student.movedim(1, -1), teacher.movedim(1, -1)
        dim = student.dim() - 1 if dim == 1 else dim - 1
    ours, theirs = ((full(x) / temperature).log_softmax(dim) for x in (student, teacher))
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim).mean() * temperature**2


def choose_distance(
    distances: Mapping[str, Callable[..., Tensor]], name: Any, temperature: Any
) -> Callable[[Tensor, Tensor], Tensor]:
    """The distance `name`, at `temperature` unless that is None. Raises UserError for one without a temperature."""
    distance = distances[check_choice("distance", name, distances)]
    if temperature is None:
        return distance
    able = [other for other, function in distances.items() if "temperature" in inspect.signature(function).parameters]
    if name not in able:
        raise UserError(
            f"distance {name} has no temperature but got {temperature!r}; remove it or choose {' or '.join(able)}"
        )
    return partial(distance, temperature=check_positive("temperature", temperature))
