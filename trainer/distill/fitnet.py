"""FitNet hints: regress the teacher's features from the student's.

Source: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, eq. 3.
Letters: N samples, C_i and T_i widths of student and teacher at stage i, H_i and W_i sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.distill.losses import mean_squared_difference
from trainer.distill.stages import check_stages, check_strides
from trainer.models.base import FEATURES, Channels, SegOutput


class FitNetHints(Distiller):
    """A 1x1 convolution from each compared stage to the teacher's width, and the mean squared difference, summed.

    The paper trains first on hints and then on labels; here both are terms of one loss.
    Options. `stages`: the compared stages, 1 to 4; the paper's hint is the teacher's middle layer.
    """

    needs: ClassVar[frozenset[str]] = FEATURES

    def __init__(self, student: Channels, teacher: Channels, *, stages: Sequence[int] = (2,)) -> None:
        super().__init__(student, teacher)
        check_strides(student, teacher)
        self.stages = check_stages("stages", stages, len(student.features))
        self.regressors = nn.ModuleList(nn.Conv2d(student.features[i], teacher.features[i], 1) for i in self.stages)

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss, a scalar."""
        losses = [
            mean_squared_difference(regressor(student.features[i]), teacher.features[i])
            for regressor, i in zip(self.regressors, self.stages, strict=True)
        ]
        return torch.stack(losses).sum()
