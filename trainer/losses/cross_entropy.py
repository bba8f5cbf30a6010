"""Cross-entropy of the pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainer.config import IGNORE
from trainer.losses.base import TaskLoss


class CrossEntropy(TaskLoss):
    """The negative log-likelihood of each labelled pixel, times the weight of its class."""

    def forward(self, logits: Tensor, label: Tensor, weights: Tensor | None) -> Tensor:
        """The sum over the labelled pixels, a scalar."""
        return pixel_losses(logits, label, weights).sum()


def pixel_losses(logits: Tensor, label: Tensor, weights: Tensor | None) -> Tensor:
    """The cross-entropy (N, H, W) of each pixel, times the weight of its class; 0 where there is no label."""
    # the same bits, and sooner: torch's kernel reads one channel after another, and upsampling leaves channels last
    logits = logits.contiguous()
    # reduction="none" and sum(): torch's own sum of two million float32 terms is less exact
    return F.cross_entropy(logits, label, weights, ignore_index=IGNORE, reduction="none")
