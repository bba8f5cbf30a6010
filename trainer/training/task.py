"""Distilled: a student and its knowledge paths as one module that returns named losses.

One module, so that DDP reduces the gradients of the projections with the student's, and one checkpoint holds both.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import IGNORE
from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.models.base import SegModel, SegOutput


class Distilled(nn.Module):
    """Student plus paths. Each loss is a *sum* over pixels or samples; Learner divides it by the global counts.

    So the losses depend neither on the micro-batch nor on the number of workers.
    """

    class_weights: Tensor | None

    def __init__(
        self, student: SegModel, paths: Mapping[str, Distiller], classes: int, class_weights: Tensor | None = None
    ) -> None:
        super().__init__()
        self.student = student
        self.paths = nn.ModuleDict(paths)
        self.classes = classes
        self.register_buffer("class_weights", class_weights, persistent=False)

    @property
    def teacher_needs(self) -> frozenset[str]:
        """The parts of the teacher's SegOutput that the paths read."""
        return frozenset().union(*(path.needs for path in self.paths.values()))  # type: ignore[arg-type]

    def forward(self, batch: Batch, teacher: SegOutput | None) -> dict[str, Tensor]:
        """`ce`: cross-entropy summed over valid pixels; `<path>`: the path's loss times the number of samples."""
        out = self.student(batch.image, batch.keys)
        losses = {"ce": cross_entropy_sum(out.logits, batch.label, self.class_weights)}
        for name, path in self.paths.items():
            losses[name] = path(batch, out, teacher) * len(batch.image)
        return losses


def weighted_losses(
    distilled: nn.Module, weights: Mapping[str, float], batch: Batch, teacher: SegOutput | None, pixels: Tensor, n: int
) -> tuple[Tensor, Tensor]:
    """The loss to differentiate, and all losses to log, (1 + paths + 1,) without a graph: the total, `ce`, the paths.

    `weights` are those of the paths. `pixels` (see `pixel_weight`) and `n` samples are those of the *global* batch.
    """
    sums = distilled(batch, teacher)
    total = sums["ce"] / pixels
    losses = [total]
    for name, weight in weights.items():
        losses.append(sums[name] / n)
        total = total + weight * losses[-1]
    return total, torch.stack([total, *losses]).detach()


def cross_entropy_sum(logits: Tensor, label: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits (N, P, h, w) summed over the valid pixels of label (N, H, W), times class weights.

    Logits are upsampled bilinearly to the label's size. Without a valid pixel the result is 0, with a graph.
    """
    logits = logits.float() if logits.dtype != torch.float64 else logits
    if logits.shape[-2:] != label.shape[-2:]:
        logits = F.interpolate(logits, size=label.shape[-2:], mode="bilinear", align_corners=False)
    # reduction="none" and sum(): torch's own sum of two million float32 terms is less exact
    return F.cross_entropy(logits, label, weights, ignore_index=IGNORE, reduction="none").sum()


def count_pixels(label: Tensor, classes: int) -> Tensor:
    """Pixels of each class (K,) int64 of an integer label of any shape; integers, so sums over workers are exact."""
    counts = torch.zeros(IGNORE + 1, dtype=torch.int64, device=label.device)
    flat = label.flatten().to(torch.int64)
    return counts.scatter_add_(0, flat, torch.ones_like(flat))[:classes]


def pixel_weight(counts: Tensor, weights: Tensor | None) -> Tensor:
    """The divisor of the summed cross-entropy: the sum of pixel counts (K,) times class weights; 1 if that is 0."""
    total = counts.sum() if weights is None else (counts.double() * weights[: len(counts)].double()).sum()
    return torch.where(total > 0, total, torch.ones_like(total)).float()
