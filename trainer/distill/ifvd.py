"""Intra-class feature variation: match each pixel's similarity to the prototype of its class in its image.

Source: Wang et al., Intra-class Feature Variation Distillation for Semantic Segmentation, ECCV 2020; in the published
code its weight is 200.
Letters: N samples, K classes, C channels, H and W sizes of the label, h and w of the feature, L = h * w pixels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.distill.losses import full, mean_square, product, unit
from trainer.distill.stages import check_stage, check_strides
from trainer.models.base import FEATURES, Channels, SegOutput


class IntraClassVariation(Distiller):
    """The mean squared difference of the pixels' cosine similarities to their prototypes. Has no parameters.

    A prototype is the mean feature of a class in one image. A pixel without a class adds 0 to the mean over all pixels.
    Options. `stage`: the compared stage, 1 to 4.
    """

    needs: ClassVar[frozenset[str]] = FEATURES

    def __init__(self, student: Channels, teacher: Channels, *, stage: int = 4) -> None:
        super().__init__(student, teacher)
        check_strides(student, teacher)
        self.stage = check_stage("stage", stage, len(student.features))
        self.classes = student.classes

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss, a scalar; 0, with a graph, where no pixel has a class."""
        ours, theirs = student.features[self.stage], teacher.features[self.stage]
        height, width = ours.shape[-2:]
        label = nearest(batch.label, height, width).flatten(1)[..., None]  # (N, L, 1)
        members = label == torch.arange(self.classes, device=label.device)  # (N, L, K), false at ignored pixels
        return mean_square(variation(ours, members) - variation(theirs, members))


def variation(feature: Tensor, members: Tensor) -> Tensor:
    """feature (N, C, h, w), members (N, L, K) bool -> cosine (N, L) of each pixel and its prototype, or 0."""
    pixels = full(feature).flatten(2)  # (N, C, L)
    chosen = members.to(pixels.dtype)
    prototypes = unit(product(pixels, chosen))  # (N, C, K); normalised, a sum equals a mean
    return (product(unit(pixels).mT, prototypes) * chosen).sum(-1)


def nearest(label: Tensor, height: int, width: int) -> Tensor:
    """label (N, H, W) -> (N, height, width): the upper left pixel of each cell, as torch's nearest resize."""
    rows, columns = (
        torch.arange(cells, device=label.device) * pixels // cells
        for cells, pixels in zip((height, width), label.shape[-2:], strict=True)
    )
    return label[:, rows][:, :, columns]
