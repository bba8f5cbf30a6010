"""The learning rate as a function of the step."""

from __future__ import annotations

from trainer.config import OptimConfig

REFERENCE_EPOCHS = 1500
"""The reference implementation decays over 1500 epochs, however many it runs."""


def learning_rate(optim: OptimConfig, step: int, steps_per_epoch: int) -> float:
    """Polynomial decay: the rate of the 0-based `step`. `to_end` is 0 once the last step is done.

    `reference` changes once an epoch and counts the epoch that is running, as the published code does.
    """
    if optim.schedule == "reference":
        done, total = step // steps_per_epoch + 1, REFERENCE_EPOCHS
    else:
        done, total = step, optim.epochs * steps_per_epoch
    return optim.lr * max(0.0, 1.0 - done / total) ** optim.power
