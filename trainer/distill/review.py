"""Knowledge Review: fuse student features from deep to shallow by spatial attention, and match the teacher's.

Source: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021.
Letters: N samples, M the width fused, H and W sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.distill.fusion import FusedFeatures
from trainer.distill.losses import hierarchical_context
from trainer.models.base import Channels


class KnowledgeReview(FusedFeatures):
    """Hierarchical context loss between fused student features and the teacher's features, summed over stages.

    Options. `width`: channels M of the fused maps; 64 as in TransKD's comparison. `stage_weights`: factor of each
    stage's loss, shallow to deep; stages shallower than the first weight above 0 are not computed.
    """

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        *,
        width: int = 64,
        stage_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    ) -> None:
        super().__init__(
            student,
            teacher,
            width=width,
            stage_weights=stage_weights,
            mixture=AttentionBasedFusion,
            distance=hierarchical_context,
        )


class AttentionBasedFusion(nn.Module):
    """Weighs two maps per position, each by a sigmoid gate computed from both maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * width, 2, 1)

    def forward(self, own: Tensor, deeper: Tensor) -> Tensor:
        """own and deeper (N, M, H, W) -> their mixture (N, M, H, W)."""
        first, second = torch.sigmoid(self.gates(torch.cat([own, deeper], dim=1))).split(1, dim=1)  # (N, 1, H, W) each
        return own * first + deeper * second
