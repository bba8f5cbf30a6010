"""PEA with the Global-Local Mixer: attention and gated convolution mix the tokens of one stage first.

Source: TransKD-GL, arXiv 2202.13393.
Letters: N samples, L tokens in row-major order, C width, h heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import UserError
from trainer.data.batch import Batch
from trainer.distill.pea import DISTANCE, STAGE_WEIGHTS, PatchEmbeddingAlignment
from trainer.distill.stages import check_count, check_number, check_stage
from trainer.models.base import Channels, SegOutput


class GlobalLocalAlignment(PatchEmbeddingAlignment):
    """Patch embedding alignment in which the mixer is applied to one stage before its projection.

    Options. `stage_weights`, `distance`, `temperature`: as in `pea`. `stage`: the mixed stage, 1 to 4; its weight must
    be above 0. `heads`: of the attention. `attention_scale` and `convolution_scale`: initial values of the two learned
    factors. `residual`: add the embedding to the mixer's output, which the published runs do not.
    """

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        *,
        stage_weights: Sequence[float] = STAGE_WEIGHTS,
        distance: str = DISTANCE,
        temperature: float | None = None,
        stage: int = 4,
        heads: int = 8,
        attention_scale: float = 0.5,
        convolution_scale: float = 0.5,
        residual: bool = False,
    ) -> None:
        super().__init__(student, teacher, stage_weights=stage_weights, distance=distance, temperature=temperature)
        self.mixed = check_stage("stage", stage, len(student.embeds))
        if self.mixed not in self.stages:
            raise UserError(
                f"stage_weights must be above 0 at the mixed stage ({stage}) but got {list(stage_weights)}; "
                "without the mixer use `pea`"
            )
        if not isinstance(residual, bool):
            raise UserError(f"residual must be true or false but got {residual!r}")
        self.residual = residual
        self.mixer = GlobalLocalMixer(student.embeds[self.mixed], heads, attention_scale, convolution_scale)

    def embed(self, batch: Batch, student: SegOutput) -> tuple[Tensor, ...]:
        """The embeddings to align (N, L_i, T_i) for each stage of `self.stages`."""
        embeds = list(student.embeds)
        mixed = self.mixer(embeds[self.mixed])
        embeds[self.mixed] = mixed + embeds[self.mixed] if self.residual else mixed
        return super().embed(batch, student._replace(embeds=tuple(embeds)))


class GlobalLocalMixer(nn.Module):
    """Multi-head attention over all tokens and a gated convolution over three neighbours, added with learned factors.

    Sources: Wu et al., Lite Transformer, ICLR 2020; Dauphin et al., Gated Convolutional Networks, ICML 2017.
    """

    def __init__(self, width: int, heads: int, attention_scale: float, convolution_scale: float) -> None:
        super().__init__()
        if width % check_count("heads", heads):
            raise UserError(f"heads must divide the width of the mixed embedding ({width}) but got {heads}")
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.value_gate = nn.Conv1d(width, 2 * width, 3, padding=1)
        self.attention_scale = nn.Parameter(torch.tensor([check_number("attention_scale", attention_scale)]))
        self.convolution_scale = nn.Parameter(torch.tensor([check_number("convolution_scale", convolution_scale)]))

    def attend(self, x: Tensor) -> Tensor:
        """The global part: x (N, L, C) -> (N, L, C)."""
        n, length, width = x.shape
        query, key, value = self.query_key_value(x).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (N, h, L, C / h)
        return self.out(mixed.transpose(1, 2).reshape(n, length, width))

    def convolve(self, x: Tensor) -> Tensor:
        """The local part: x (N, L, C) -> (N, L, C). Row ends neighbour the next row's start, as published."""
        return F.glu(self.value_gate(x.transpose(1, 2)), dim=1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, L, C) -> (N, L, C)."""
        return self.attention_scale * self.attend(x) + self.convolution_scale * self.convolve(x)
