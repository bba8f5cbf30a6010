"""Average: the exponential moving average of a student's weights, which is validated, saved and deployed."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from trainer.models.base import SegModel


class Average:
    """A copy of a student whose weights and statistics follow it; its counters are the student's.

    After the 0-based step n it is `d * average + (1 - d) * student` with d = min(decay, (1 + n) / (10 + n)): the first
    steps weigh more, so that a short run forgets its initial weights. Source: the `num_updates` of TensorFlow's
    ExponentialMovingAverage; averaged students as in Tarvainen and Valpola, Mean teachers, arXiv 1703.01780.
    """

    def __init__(self, student: SegModel, decay: float) -> None:
        self.decay = decay
        self.model = deepcopy(student).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, student: SegModel, step: int) -> None:
        """Follow the student after the 0-based `step` of its run."""
        share = 1.0 - min(self.decay, (1 + step) / (10 + step))
        pairs = _pairs(self.model, student)
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([ours for ours, _ in floating], [theirs for _, theirs in floating], share)
        for ours, theirs in pairs:
            if not ours.is_floating_point():
                ours.copy_(theirs)


def _pairs(average: SegModel, student: SegModel) -> list[tuple[Tensor, Tensor]]:
    """The tensors of both state dicts, each once: one that two modules share has two names there."""
    theirs = student.state_dict(keep_vars=True)
    named = average.state_dict(keep_vars=True).items()
    return list({id(ours): (ours, theirs[name]) for name, ours in named}.values())
