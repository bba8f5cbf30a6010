"""Online hard example mining: the cross-entropy of the pixels of which the student is not yet sure.

Sources: Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining, CVPR 2016, arXiv
1604.03540; of pixels below a threshold: Wu et al., Bridging Category-level and Instance-level Semantic Image
Segmentation, arXiv 1605.06885, section 2.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer.losses.base import TaskLoss, number_in
from trainer.losses.cross_entropy import pixel_losses


class HardPixels(TaskLoss):
    """The cross-entropy of the pixels whose class has a probability below `threshold`; that of the others is 0.

    It is divided by the labelled pixels, as cross-entropy is, and not by the hard ones: their number in a global batch
    is known only after all its forward passes. So there is no smallest number of pixels (`min_kept`) either.
    Options. `threshold`: 0.7, as in mmsegmentation's OHEMPixelSampler; 1 is cross-entropy.
    """

    def __init__(self, *, threshold: float = 0.7) -> None:
        super().__init__()
        self.least = -math.log(number_in("threshold", threshold, 1e-6, 1))

    def forward(self, logits: Tensor, label: Tensor, weights: Tensor | None) -> Tensor:
        """The sum over the hard pixels, a scalar."""
        plain = pixel_losses(logits, label, None)
        weighted = plain if weights is None else pixel_losses(logits, label, weights)
        return torch.where(plain > self.least, weighted, torch.zeros_like(weighted)).sum()
