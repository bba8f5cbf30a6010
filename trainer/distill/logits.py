"""shared_logits: what distillers of logits compare."""

from __future__ import annotations

from torch import Tensor

from trainer.models.base import SegOutput


def shared_logits(student: SegOutput, teacher: SegOutput) -> tuple[Tensor, Tensor]:
    """The logits (N, K, H/4, W/4) of the first K classes, which both networks have.

    Published weights predict a 20th class, void, that a student of 19 classes lacks; it takes part in no softmax then.
    """
    assert student.logits is not None and teacher.logits is not None
    classes = min(student.logits.shape[1], teacher.logits.shape[1])
    return student.logits[:, :classes], teacher.logits[:, :classes]
