"""The soft Dice loss: overlap of the probabilities of a class with its pixels, image by image.

Source: Milletari et al., V-Net, 3DV 2016, arXiv 1606.04797, section 3, with its squared denominator, for each class.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.config import IGNORE
from trainer.losses.base import TaskLoss, number_in


class Dice(TaskLoss):
    """1 - 2 sum(p g) / (sum(p p) + sum(g)) of each class that an image has, mean over these classes.

    p are the probabilities of a class, g is 1 at its pixels; pixels without a label are left out. All classes of an
    image count alike: `data.class_weights` do not apply.
    Options. `smooth`: added to both sides of the fraction; 1, as in mmsegmentation's DiceLoss.
    """

    per = "image"

    def __init__(self, *, smooth: float = 1.0) -> None:
        super().__init__()
        self.smooth = number_in("smooth", smooth, 1e-6, 1e6)

    def forward(self, logits: Tensor, label: Tensor, weights: Tensor | None) -> Tensor:
        """The sum over images, a scalar."""
        labelled = (label != IGNORE)[:, None]  # (N, 1, H, W)
        classes = torch.arange(logits.shape[1], device=label.device).view(1, -1, 1, 1)
        truth = (label[:, None] == classes).to(logits.dtype)  # (N, P, H, W)
        probability = logits.softmax(1) * labelled
        overlap, pixels = (probability * truth).sum((2, 3)), truth.sum((2, 3))  # (N, P)
        dice = (2 * overlap + self.smooth) / (probability.square().sum((2, 3)) + pixels + self.smooth)
        present = (pixels > 0).to(logits.dtype)
        return (((1 - dice) * present).sum(1) / present.sum(1).clamp_min(1)).sum()
