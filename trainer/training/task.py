"""Distilled: a student with its task losses and knowledge paths as one module that returns named losses.

One module, so that DDP reduces the gradients of the projections with the student's, and one checkpoint holds both.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainer.config import IGNORE, UserError
from trainer.config.blame import named
from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.losses import TaskLoss, at_label_size
from trainer.losses.cross_entropy import CrossEntropy
from trainer.models.base import SegModel, SegOutput


class Distilled(nn.Module):
    """Student, task losses and paths. Each loss is a *sum* over pixels or samples; Learner divides it by the global
    counts.

    So the losses depend neither on the micro-batch nor on the number of workers.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        student: SegModel,
        paths: Mapping[str, Distiller],
        classes: int,
        class_weights: Tensor | None = None,
        losses: Mapping[str, TaskLoss] | None = None,
    ) -> None:
        """`losses`: by default cross-entropy, as `ce`."""
        super().__init__()
        self.student = student
        self.paths = nn.ModuleDict(paths)
        self.losses = nn.ModuleDict({"ce": CrossEntropy()} if losses is None else losses)
        self.per_pixel = tuple(name for name, loss in self.losses.items() if loss.per == "pixel")
        self.classes = classes
        self.register_buffer("class_weights", class_weights, persistent=False)

    @property
    def teacher_needs(self) -> frozenset[str]:
        """The parts of the teacher's SegOutput that the paths read."""
        return frozenset().union(*(path.needs for path in self.paths.values()))  # type: ignore[arg-type]

    def forward(self, batch: Batch, teacher: SegOutput | None) -> dict[str, Tensor]:
        """By name: a task loss as the sum that TaskLoss says; a path's loss times the number of samples."""
        return self.losses_of(self.student(batch.image, batch.keys), batch, teacher)

    def losses_of(self, out: SegOutput, batch: Batch, teacher: SegOutput | None) -> dict[str, Tensor]:
        """The same from the student's output. Raises UserError for a path whose loss is no scalar."""
        assert out.logits is not None
        logits = at_label_size(out.logits, batch.label)
        losses = {name: loss(logits, batch.label, self.class_weights) for name, loss in self.losses.items()}
        for name, path in self.paths.items():
            loss: object = path(batch, out, teacher)
            if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
                got = f"{loss.dtype} of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
                raise UserError(
                    f"{named(path)}distill.{name}: the loss must be a float scalar, but is {got}; end with .mean()"
                )
            losses[name] = loss * len(batch.image)
        return losses


def weighted_losses(
    distilled: Distilled, weights: Mapping[str, float], batch: Batch, teacher: SegOutput | None, pixels: Tensor, n: int
) -> tuple[Tensor, Tensor]:
    """The loss to differentiate; and without a graph all losses to log, (1 + losses,): the total, those of `weights`.

    `weights` are those of task losses and paths. `pixels` (see `pixel_weight`) and `n` samples are those of the
    *global* batch.
    """
    sums = distilled(batch, teacher)
    losses = {name: sums[name] / (pixels if name in distilled.per_pixel else n) for name in weights}
    weighted = [losses[name] if weight == 1 else weight * losses[name] for name, weight in weights.items()]
    total = weighted[0]
    for loss in weighted[1:]:
        total = total + loss
    return total, torch.stack([total, *losses.values()]).detach()


def count_pixels(label: Tensor, classes: int) -> Tensor:
    """Pixels of each class (K,) int64 of an integer label of any shape; integers, so sums over workers are exact."""
    counts = torch.zeros(IGNORE + 1, dtype=torch.int64, device=label.device)
    flat = label.flatten().to(torch.int64)
    return counts.scatter_add_(0, flat, torch.ones_like(flat))[:classes]


def pixel_weight(counts: Tensor, weights: Tensor | None) -> Tensor:
    """The divisor of the summed cross-entropy: the sum of pixel counts (K,) times class weights; 1 if that is 0."""
    total = counts.sum() if weights is None else (counts.double() * weights[: len(counts)].double()).sum()
    return torch.where(total > 0, total, torch.ones_like(total)).float()
