"""Average: the exponential moving average of a student's weights, which is validated, saved and deployed."""

from __future__ import annotations

from copy import deepcopy

import torch

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
        ours, theirs = self.model.state_dict(), student.state_dict()
        floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        share = 1.0 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], share)
        for name in ours.keys() - set(floating):
            ours[name].copy_(theirs[name])
