"""The learning rate schedule."""

from __future__ import annotations

from trainer.config import OptimConfig

REFERENCE_EPOCHS = 1500
"""The reference implementation decays over 1500 epochs, whatever number it trains."""


def learning_rate(optim: OptimConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of the 0-based `step`: lr * (1 - done / total) ** power.

    Schedule `to_end`: `total` is all steps of the run. `reference`: as the published code, in epochs of 1500, where the
    running epoch counts as done.
    """
    if optim.schedule == "reference":
        done, total = step // steps_per_epoch + 1, REFERENCE_EPOCHS
    else:
        done, total = step, optim.epochs * steps_per_epoch
    return optim.lr * max(0.0, 1.0 - done / total) ** optim.power
