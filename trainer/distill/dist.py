"""DIST: correlations of the class probabilities, within each pixel and within each class.

Source: Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022.
Letters: N samples, K classes that both networks have, H and W sizes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from trainer.config import UserError
from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.distill.losses import full, shared_logits
from trainer.distill.stages import check_number, check_positive
from trainer.models.base import LOGITS, Channels, SegOutput
from trainer.models.groups import in_groups

EPSILON = 1e-8
"""Added to the product of two norms, as published: a constant vector then has correlation 0."""


class CorrelationDistillation(Distiller):
    """One minus Pearson's correlation of student and teacher probabilities: inter-class and intra-class relations.

    Inter-class: over the classes of a pixel, mean over pixels. Intra-class: over all pixels of a BatchNorm group
    (optim.norm_batch), mean over classes; the published code takes the samples on one GPU.
    Options. `beta` and `gamma`: factors of the inter-class and the intra-class term. `temperature`: divides the logits
    of both; the loss is multiplied by its square.
    """

    needs: ClassVar[frozenset[str]] = LOGITS

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        *,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(student, teacher)
        self.beta, self.gamma = check_number("beta", beta), check_number("gamma", gamma)
        if min(self.beta, self.gamma) < 0 or max(self.beta, self.gamma) == 0:
            raise UserError(
                f"beta and gamma must be at least 0 and one of them above 0 but got {self.beta} and {self.gamma}; "
                "to drop the whole path, remove it from `distill`"
            )
        self.temperature = check_positive("temperature", temperature)
        self.norm_batch: int | None = None

    def set_norm_batch(self, norm_batch: int) -> None:
        """Set the number of samples in one group; unset, the batch is one group."""
        self.norm_batch = norm_batch

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss, a scalar."""
        ours, theirs = (self._probabilities(logits) for logits in shared_logits(student, teacher))
        between = 1 - correlation(ours, theirs, 2).mean()
        within = torch.zeros_like(between)
        for (own, x), (_, y) in zip(*(in_groups(p, self.norm_batch) for p in (ours, theirs)), strict=True):
            of_classes = correlation(x.flatten(0, 1), y.flatten(0, 1), 0)
            within = within + (1 - of_classes.mean()) * (len(own) / len(ours))
        return self.temperature**2 * (self.beta * between + self.gamma * within)

    def _probabilities(self, logits: Tensor) -> Tensor:
        """(N, K, H, W) -> (N, H * W, K), at least in float32."""
        return (full(logits.flatten(2).mT) / self.temperature).softmax(2)


def correlation(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Pearson's correlation of x and y along `dim`, which it removes."""
    x, y = (v - v.mean(dim, keepdim=True) for v in (x, y))
    norms = torch.linalg.vector_norm(x, dim=dim) * torch.linalg.vector_norm(y, dim=dim)
    return (x * y).sum(dim) / (norms + EPSILON)
