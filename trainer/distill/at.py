"""Attention transfer: match the spatial attention maps of student and teacher.

Source: Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017, eq. 2; positions averaged as in the
published code, whose weight is 1000.
Letters: N samples, C channels, H and W sizes, L = H * W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import UserError
from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.distill.losses import full, mean_square
from trainer.distill.stages import check_positive, check_stages, check_strides
from trainer.models.base import FEATURES, Channels, SegOutput


class AttentionTransfer(Distiller):
    """The mean squared difference of normalised attention maps, summed over stages. Has no parameters.

    Options. `stages`: the compared stages, 1 to 4. `power`: p of the map, the sum of |feature|^p over channels.
    """

    needs: ClassVar[frozenset[str]] = FEATURES

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        *,
        stages: Sequence[int] = (1, 2, 3, 4),
        power: float = 2.0,
    ) -> None:
        super().__init__(student, teacher)
        check_strides(student, teacher)
        self.stages = check_stages("stages", stages, len(student.features))
        self.power = check_positive("power", power)
        if self.power < 1:  # below 1 the gradient of |x|^p is infinite at 0
            raise UserError(f"power must be at least 1 but got {power}")

    def attention(self, feature: Tensor) -> Tensor:
        """feature (N, C, H, W) -> its attention map (N, L), divided by its L2 norm."""
        return F.normalize(full(feature).abs().pow(self.power).sum(1).flatten(1), dim=1)

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss, a scalar."""
        losses = [
            mean_square(self.attention(student.features[i]) - self.attention(teacher.features[i])) for i in self.stages
        ]
        return torch.stack(losses).sum()
