"""The Lovasz-Softmax loss: a surrogate of 1 - IoU, image by image.

Source: Berman et al., The Lovasz-Softmax loss, CVPR 2018, arXiv 1705.08790, equations 8, 9 and 11, algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.config import IGNORE
from trainer.losses.base import TaskLoss


class Lovasz(TaskLoss):
    """The Lovasz extension of 1 - IoU of each class that an image has, mean over these classes.

    It is the paper's loss with `classes='present'` and `per_image=True`: over a whole batch it would depend on the
    micro-batch. All classes of an image count alike: `data.class_weights` do not apply.
    """

    per = "image"

    def forward(self, logits: Tensor, label: Tensor, weights: Tensor | None) -> Tensor:
        """The sum over images, a scalar."""
        label, labelled = label.flatten(1), label.flatten(1) != IGNORE  # (N, H W)
        total, present = logits.new_zeros(len(label)), logits.new_zeros(len(label))
        for k, probability in enumerate(logits.softmax(1).flatten(2).unbind(1)):
            truth = label == k
            total = total + _extension(probability, truth, labelled)
            present = present + truth.any(1).to(logits.dtype)
        return (total / present.clamp_min(1)).sum()


def _extension(probability: Tensor, truth: Tensor, labelled: Tensor) -> Tensor:
    """The loss (N,) of one class of probabilities (N, M); 0 for an image without its pixels."""
    wrong = torch.where(truth, 1 - probability, probability) * labelled
    wrong, order = wrong.sort(dim=1, descending=True, stable=True)
    hits = truth.gather(1, order).long()
    others = (labelled & ~truth).gather(1, order).long()
    pixels = hits.sum(1, keepdim=True)
    # of the k largest errors; counts are integers, whose sums are exact and deterministic on GPUs
    jaccard = 1 - (pixels - hits.cumsum(1)).to(wrong.dtype) / (pixels + others.cumsum(1)).clamp_min(1).to(wrong.dtype)
    steps = torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], 1)
    return (wrong * steps).sum(1) * (pixels[:, 0] > 0)
