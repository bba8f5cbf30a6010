"""The micro-batches of a training step: made once for all runs that train side by side, the teacher's output too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from trainer import parallel
from trainer.config import Normalize
from trainer.data.batch import Batch
from trainer.data.stream import HostBatch, to_batch
from trainer.models.base import SegModel, SegOutput
from trainer.models.pyramid import Pyramid
from trainer.training.learner import Learner
from trainer.training.task import count_pixels, pixel_weight


class Part(NamedTuple):
    """One micro-batch of a step."""

    batch: Batch
    teacher: SegOutput | None
    """The teacher's output on the batch, None where no path needs it."""
    counts: Tensor
    """(K,) int64: the pixels of each class in the global batch."""
    last: bool
    """Whether it is the last of the step."""


def parts(
    host: HostBatch,
    teacher: Callable[[Tensor], SegOutput] | None,
    device: torch.device,
    normalize: Normalize,
    micro: int,
    classes: int,
) -> Iterator[Part]:
    """This worker's share of a step, in micro-batches of `micro` samples."""
    image, label, keys = to_batch(host, device, normalize)
    assert isinstance(keys, Tensor)
    counts = parallel.all_reduce(count_pixels(label, classes))
    split = [Batch(*tensors) for tensors in zip(*(whole.split(micro) for whole in (image, label, keys)), strict=True)]
    for position, part in enumerate(split):
        yield Part(part, teacher(part.image) if teacher else None, counts, position + 1 == len(split))


def drawn(part: Part, student: SegModel) -> Part:
    """The part with the masks of dropout and drop-path in place of the keys, for this network and all equal ones."""
    masks = student.draw(part.batch.keys) if isinstance(student, Pyramid) else None
    return part if masks is None else part._replace(batch=part.batch._replace(keys=masks))


def accumulate(learner: Learner, part: Part, samples: int) -> None:
    """Add the gradients of a micro-batch. `samples` is the size of the global batch."""
    pixels = pixel_weight(part.counts, learner.distilled.class_weights)
    teacher = part.teacher if learner.distilled.paths else None
    learner.accumulate(part.batch, teacher, pixels, samples, last=part.last)
