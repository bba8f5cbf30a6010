"""Response-based distillation: match the class probabilities of each pixel.

Sources: Hinton et al., Distilling the Knowledge in a Neural Network, arXiv 1503.02531; pixel by pixel as in Liu et al.,
Structured Knowledge Distillation for Semantic Segmentation, CVPR 2019.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from trainer.data.batch import Batch
from trainer.distill.base import Distiller
from trainer.distill.divergences import pixel_divergence
from trainer.distill.losses import shared_logits
from trainer.distill.stages import check_positive
from trainer.models.base import LOGITS, Channels, SegOutput


class ResponseDistillation(Distiller):
    """KL(teacher || student) of the class probabilities, times the temperature squared, mean over all pixels.

    Pixels that the label ignores count too, because the teacher has predictions there. Logits are compared at a quarter
    of the image's size, as the networks return them.
    Options. `temperature`: divides the logits of both; 1 as in the published code of CIRKD (Yang et al., CVPR 2022).
    """

    needs: ClassVar[frozenset[str]] = LOGITS

    def __init__(self, student: Channels, teacher: Channels, *, temperature: float = 1.0) -> None:
        super().__init__(student, teacher)
        self.temperature = check_positive("temperature", temperature)

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        """The path's loss, a scalar."""
        return pixel_divergence(*shared_logits(student, teacher), self.temperature)
