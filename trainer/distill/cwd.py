"""Channel-wise distillation: match each channel's softmax over positions.

Source: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021. Published weights, with
temperature 4: 3 on logits (its code); 50 on features of CNNs, 5 with 0.3 on logits for SegFormer (the code of CIRKD,
Yang et al., CVPR 2022).
Letters: N samples, C_i and T_i widths of student and teacher at stage i, H_i and W_i sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.distill.divergences import channel_divergence, channel_square
from trainer.distill.losses import shared_logits
from trainer.distill.stages import check_choice, check_positive, check_stages, check_strides
from trainer.models.base import FEATURES, LOGITS, Channels, SegOutput

DISTANCES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"kl": channel_divergence, "mse": channel_square}


class ChannelWiseDistillation(Distiller):
    """Distance between student and teacher of each class's softmax over positions, mean over classes.

    Options. `temperature`: divides the logits of both. `distance`: `kl`, the divergence from the teacher's
    distribution, or `mse`, the squared distance of the two, which the published code computes at temperature 1 only.
    """

    needs: ClassVar[frozenset[str]] = LOGITS

    def __init__(self, student: Channels, teacher: Channels, *, temperature: float = 4.0, distance: str = "kl") -> None:
        super().__init__(student, teacher)
        self.temperature = check_positive("temperature", temperature)
        self.distance = DISTANCES[check_choice("distance", distance, DISTANCES)]

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss, a scalar."""
        return self.distance(*shared_logits(student, teacher), self.temperature)


class ChannelWiseFeatureDistillation(Distiller):
    """The same distance for stage outputs, mean over channels, summed over stages.

    A path of its own, so that it can be combined with `cwd` at another weight. Where widths differ, a 1x1 convolution
    projects to the teacher's width; it has no bias, because softmax over positions cancels it.
    Options. `stages`: the compared stages, 1 to 4. `temperature` and `distance`: as in `cwd`.
    """

    needs: ClassVar[frozenset[str]] = FEATURES

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        *,
        stages: Sequence[int] = (4,),
        temperature: float = 4.0,
        distance: str = "kl",
    ) -> None:
        super().__init__(student, teacher)
        check_strides(student, teacher)
        self.stages = check_stages("stages", stages, len(student.features))
        self.temperature = check_positive("temperature", temperature)
        self.distance = DISTANCES[check_choice("distance", distance, DISTANCES)]
        self.projections = nn.ModuleList(_projection(student.features[i], teacher.features[i]) for i in self.stages)

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss, a scalar."""
        losses = [
            self.distance(projection(student.features[i]), teacher.features[i], self.temperature)
            for projection, i in zip(self.projections, self.stages, strict=True)
        ]
        return torch.stack(losses).sum()


def _projection(student: int, teacher: int) -> nn.Module:
    """(N, C_i, H_i, W_i) -> (N, T_i, H_i, W_i)."""
    return nn.Identity() if student == teacher else nn.Conv2d(student, teacher, 1, bias=False)
