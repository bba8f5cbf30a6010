"""Masks of dropout and drop-path: a function of the sample's key and the module's name only.

A network draws the masks of all its modules at once: drawn one by one, they are a third of a training step's kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from trainer import rng
from trainer.models.base import Keys


class KeyedMask(nn.Module):
    """Multiplies its input by a random mask of 0 and 1 / (1 - rate) in training; `name` seeds the mask."""

    def __init__(self, name: str, rate: float, width: int = 1) -> None:
        super().__init__()
        self.name, self.rate, self.width = name, rate, width

    def extra_repr(self) -> str:
        return f"{self.name!r}, rate={self.rate:g}"

    def of(self, masks: Mapping[str, Tensor] | None, x: Tensor) -> Tensor | None:
        """This module's mask (N, width, 1) in the dtype of x; None when nothing is dropped. `masks` are by name.

        Raises ValueError where they are needed and not given.
        """
        if not self.training or self.rate == 0:
            return None
        if masks is None:
            raise ValueError(
                f"{self.name} has rate {self.rate:g} and needs the batch's keys in training, but got none; pass keys"
            )
        return masks[self.name].to(x.dtype)


class StochasticDepth(KeyedMask):
    """Drops the residual branch of whole samples (Huang et al., ECCV 2016)."""

    def forward(self, branch: Tensor, masks: Mapping[str, Tensor] | None) -> Tensor:
        """branch (N, L, C) -> the same shape."""
        mask = self.of(masks, branch)
        return branch if mask is None else branch * mask


class ChannelDropout(KeyedMask):
    """Drops whole channels of a sample (Tompson et al., CVPR 2015); `width` is the number of channels."""

    def forward(self, x: Tensor, masks: Mapping[str, Tensor] | None) -> Tensor:
        """x (N, C, h, w) -> the same shape."""
        mask = self.of(masks, x)
        return x if mask is None else x * mask[:, :, :, None]


class MaskDraw(nn.Module):
    """Draws the masks of modules, all in one: name -> (N, width, 1). Modules of rate 0 have none."""

    salts: Tensor  # (M,) int64, of each number that is drawn for a sample
    lanes: Tensor  # (M,) int64, its place in its module
    rates: Tensor  # (M,)
    kept: Tensor  # (M,) 1 - rate

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        drawn = [module for module in modules if isinstance(module, KeyedMask) and module.rate > 0]
        self.widths = {module.name: module.width for module in drawn}
        self._kept = [1.0 - module.rate for module in drawn for _ in range(module.width)]
        salts = [rng.salt(module.name) for module in drawn for _ in range(module.width)]
        lanes = [lane for module in drawn for lane in range(module.width)]
        rates = [module.rate for module in drawn for _ in range(module.width)]
        self.register_buffer("salts", torch.tensor(salts, dtype=torch.int64), persistent=False)
        self.register_buffer("lanes", torch.tensor(lanes, dtype=torch.int64), persistent=False)
        self.register_buffer("rates", torch.tensor(rates), persistent=False)
        self.register_buffer("kept", torch.tensor(self._kept), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MaskDraw:
        super()._apply(fn, recurse)
        self.kept = torch.tensor(self._kept, dtype=self.rates.dtype, device=self.rates.device)  # not rounded before
        return self

    def forward(self, keys: Keys | None) -> Mapping[str, Tensor] | None:
        """Keys -> the masks by name; None in evaluation, and without keys."""
        if isinstance(keys, Mapping):
            return keys
        if not self.training or keys is None or not self.widths:
            return None
        masks = (rng.uniform(keys, self.salts, self.lanes) >= self.rates) / self.kept
        return dict(zip(self.widths, masks[:, :, None].split(list(self.widths.values()), 1), strict=True))
