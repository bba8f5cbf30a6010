"""The focal loss: cross-entropy that weighs a pixel less the surer the student is of it.

Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv 1708.02002, equation 5, with the softmax of
all classes in place of a sigmoid; alpha is `data.class_weights`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.losses.base import TaskLoss, number_in
from trainer.losses.cross_entropy import pixel_losses

SMALLEST = 1.0e-6
"""Of 1 - p: powers below 1 have no finite derivative at 0."""


class Focal(TaskLoss):
    """(1 - p) ** gamma times the cross-entropy, with p the probability of the pixel's class.

    Options. `gamma`: 2, as in the paper; 0 is cross-entropy.
    """

    def __init__(self, *, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = number_in("gamma", gamma, 0, 100)

    def forward(self, logits: Tensor, label: Tensor, weights: Tensor | None) -> Tensor:
        """The sum over the labelled pixels, a scalar."""
        plain = pixel_losses(logits, label, None)
        weighted = plain if weights is None else pixel_losses(logits, label, weights)
        unsure = (-torch.expm1(-plain)).clamp_min(SMALLEST)  # 1 - p
        return (unsure**self.gamma * weighted).sum()
