"""Groups of `norm_batch` samples of the global batch, within which BatchNorm and some distillers relate samples.

A worker holds a contiguous share of the global batch. Its groups are its own where a forward pass holds whole groups;
else they are split over workers, and a forward pass must hold the worker's whole share.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from trainer import parallel
from trainer.config import UserError


class Part(NamedTuple):
    """The samples of one group that a worker has."""

    group: int
    """Number of the group in the global batch; in this forward pass where no group is split."""
    own: slice
    """Their places in this forward pass."""
    whole: slice
    """The places of the whole group in the global batch; in this forward pass where no group is split."""


def are_split(samples: int, size: int) -> bool:
    """Whether groups of `size` are split over workers, of which each has `samples`.

    Raises UserError where a forward pass of `samples` can neither hold whole groups nor be a worker's share of them.
    """
    if samples % size == 0:
        return False
    if samples * parallel.world() % size:
        raise UserError(
            f"the batch must be a multiple of the BatchNorm group of {size} samples but has "
            f"{samples * parallel.world()}"
        )
    return True


def parts(samples: int, size: int) -> list[Part]:
    """This worker's part of each group that it has samples of, in order."""
    first = parallel.rank() * samples if are_split(samples, size) else 0
    return [
        Part(
            group,
            slice(max(group * size - first, 0), min((group + 1) * size - first, samples)),
            slice(group * size, (group + 1) * size),
        )
        for group in range(first // size, (first + samples - 1) // size + 1)
    ]


def in_groups(x: Tensor, size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """x (N, ...) -> of each group, its samples that this worker has, and all of its samples, which have a gradient too.

    `size` None makes the batch of this forward pass one group.
    """
    size = size or len(x)
    whole = parallel.gather_samples(x) if are_split(len(x), size) else x
    for part in parts(len(x), size):
        yield x[part.own], whole[part.whole]
