"""Cross-image relational distillation: match the similarities between the pixels of two images.

Source: Yang et al., Cross-Image Relational Knowledge Distillation for Semantic Segmentation, CVPR 2022: the mini-batch
pixel-to-pixel term, temperature as in the published code. The terms with memory banks of pixels and regions are left
out: the content of such a queue depends on how earlier batches were split over workers.
Letters: N samples in groups of n, C channels, H and W sizes, L pixels of a map after pooling.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import UserError
from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.distill.losses import product, unit
from trainer.distill.stages import check_count, check_positive, check_stage, check_strides
from trainer.models.base import FEATURES, Channels, SegOutput
from trainer.models.groups import in_groups


class CrossImageRelations(Distiller):
    """KL(teacher || student) of the softmax of one pixel's cosine similarities to all pixels of another image.

    Mean over pixels and over all ordered pairs of images in a BatchNorm group (optim.norm_batch), including an image
    with itself; the published code pairs the samples on one GPU. Has no parameters; widths may differ.
    Options. `stage`: the compared stage, 1 to 4. `temperature`: of the softmax. `pool`: side of the average pooling
    before the comparison; time and memory fall with its fourth power.
    """

    needs: ClassVar[frozenset[str]] = FEATURES

    def __init__(
        self, student: Channels, teacher: Channels, *, stage: int = 4, temperature: float = 0.1, pool: int = 1
    ) -> None:
        super().__init__(student, teacher)
        check_strides(student, teacher)
        self.stage = check_stage("stage", stage, len(student.features))
        self.temperature = check_positive("temperature", temperature)
        self.pool = check_count("pool", pool)
        self.norm_batch: int | None = None

    def set_norm_batch(self, norm_batch: int) -> None:
        """Set the number of samples in one group; unset, the batch is one group."""
        self.norm_batch = norm_batch

    def pixels(self, feature: Tensor) -> Tensor:
        """feature (N, C, H, W) -> its pooled pixels (N, L, C) as unit vectors."""
        if self.pool > 1:
            feature = F.avg_pool2d(feature, self.pool, ceil_mode=True)
        if feature[0, 0].numel() == 1:
            raise UserError(f"pool {self.pool} leaves one cell of the stage's map, but relations need two; lower pool")
        return unit(feature.flatten(2)).mT

    def log_relations(self, own: Tensor, whole: Tensor) -> Tensor:
        """own (m, L, C), whole (n, L, C) -> log probabilities (m * L, n, L): pixel, image of the group, its pixels."""
        similarities = product(own.flatten(0, 1)[None], whole.flatten(0, 1).mT[None] / self.temperature)[0]
        return similarities.unflatten(1, whole.shape[:2]).log_softmax(-1)

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss, a scalar."""
        groups = [in_groups(self.pixels(out.features[self.stage]), self.norm_batch) for out in (student, teacher)]
        loss = torch.zeros((), device=batch.image.device)
        for ours, theirs in zip(*groups, strict=True):
            relations, target = self.log_relations(*ours), self.log_relations(*theirs)
            divergence = F.kl_div(relations, target, reduction="sum", log_target=True)
            loss = loss + divergence / (len(batch.image) * relations[0].numel())  # n of N * L pixels each
        return loss
