"""The learning rate of every step: polynomial decay, after a linear warm-up."""

from __future__ import annotations

from trainer.config import OptimConfig

REFERENCE_EPOCHS = 1500
"""The reference implementation decays over 1500 epochs, whatever number it trains."""

WARMUP_RATIO = 1.0e-6
"""The factor of the first step of a warm-up: `warmup_ratio` of SegFormer's configs (NVlabs/SegFormer)."""


def learning_rate(optim: OptimConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of the 0-based `step`: lr * (1 - done / total) ** power.

    It is multiplied by a factor that rises linearly to 1 over `warmup_iterations`, as in mmcv's `warmup: linear`.

    Schedule `to_end`: `total` is all steps of the run. `reference`: as the published code, in epochs of 1500, where the
    running epoch counts as done.
    """
    if optim.schedule == "reference":
        done, total = step // steps_per_epoch + 1, REFERENCE_EPOCHS
    else:
        done, total = step, optim.epochs * steps_per_epoch
    rate = optim.lr * max(0.0, 1.0 - done / total) ** optim.power
    if step < optim.warmup_iterations:
        rate *= 1.0 - (1.0 - step / optim.warmup_iterations) * (1.0 - WARMUP_RATIO)
    return rate
