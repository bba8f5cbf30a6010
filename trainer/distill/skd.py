"""Structured knowledge distillation: match the pairwise similarities of the patches of an image.

Source: Liu et al., Structured Knowledge Distillation for Semantic Segmentation, CVPR 2019: the pair-wise term, with
patches as in the published code. Its pixel-wise term is `kd`. Its holistic term, a Wasserstein GAN, is left
out: the discriminator needs its own optimiser and schedule.
Letters: N samples, C channels, H and W sizes, P patches.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainer.config import UserError
from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.distill.losses import mean_square, product, unit
from trainer.distill.stages import check_count, check_positive, check_stage, check_strides
from trainer.models.base import FEATURES, Channels, SegOutput


class PairwiseSimilarity(Distiller):
    """The mean squared difference of the cosine similarities between all patches of an image. Has no parameters.

    Options. `stage`: the compared stage, 1 to 4. Patches are max-pooled. Their size is either `scale`, as a share of
    the map's height and width (default 0.5), or `patch`, in positions of the map; the code of CIRKD (Yang et al., CVPR
    2022) has 2, with weight 10.
    """

    needs: ClassVar[frozenset[str]] = FEATURES

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        *,
        stage: int = 4,
        scale: float | None = None,
        patch: int | None = None,
    ) -> None:
        super().__init__(student, teacher)
        check_strides(student, teacher)
        self.stage = check_stage("stage", stage, len(student.features))
        if scale is not None and patch is not None:
            raise UserError(f"scale and patch exclude each other but got {scale} and {patch}; remove one")
        self.patch = None if patch is None else check_count("patch", patch)
        self.scale = 0.5 if scale is None else check_positive("scale", scale)
        if self.scale >= 1:
            raise UserError(f"scale must be below 1 but got {scale}: one patch has no pairs; lower it")

    def similarities(self, feature: Tensor) -> Tensor:
        """feature (N, C, H, W) -> the cosine similarities of all pairs of patches (N, P, P)."""
        patch = [self.patch or max(1, int(size * self.scale)) for size in feature.shape[-2:]]
        vectors = unit(F.max_pool2d(feature, patch, stride=patch, ceil_mode=True).flatten(2))  # (N, C, P)
        if vectors.shape[-1] == 1:
            height, width = feature.shape[-2:]
            raise UserError(f"one patch of {patch[0]}x{patch[1]} fills the {height}x{width} map; lower stage or patch")
        return product(vectors.mT, vectors)

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss, a scalar."""
        ours, theirs = (self.similarities(out.features[self.stage]) for out in (student, teacher))
        return mean_square(ours - theirs)
