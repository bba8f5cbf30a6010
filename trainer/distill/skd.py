"""Structured knowledge distillation: how alike each two patches of an image are, to the student and to the teacher.

Source: Liu et al., Structured Knowledge Distillation for Semantic Segmentation, CVPR 2019: the pair-wise term, with
patches as in the published code. Its pixel-wise term is `kd`. Its holistic term is left out: it is a Wasserstein GAN,
whose discriminator needs an optimiser and a schedule of its own.
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

    Options. `stage`: whose features are compared, 1 to 4. A patch is max-pooled; its height and width are `scale`, a
    share of the map's (0.5 if neither is given), or `patch`, in positions of the map: 2 in the code of CIRKD (Yang et
    al., CVPR 2022), with the weight 10.
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
            raise UserError(f"scale and patch both size a patch but got {scale} and {patch}; remove one")
        self.patch = None if patch is None else check_count("patch", patch)
        self.scale = 0.5 if scale is None else check_positive("scale", scale)
        if self.scale >= 1:
            raise UserError(f"scale must be a share of the map, below 1, but got {scale}; one patch makes no pair")

    def similarities(self, feature: Tensor) -> Tensor:
        """feature (N, C, H, W) -> the cosine similarity of each two patches, (N, P, P)."""
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
