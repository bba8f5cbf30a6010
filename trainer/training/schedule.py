"""The steps of an epoch, and the learning rate of every step: polynomial decay, after a linear warm-up."""

from __future__ import annotations

from trainer.config import OptimConfig, UserError

REFERENCE_EPOCHS = 1500
"""The reference implementation decays over 1500 epochs, whatever number it trains."""

WARMUP_RATIO = 1.0e-6
"""The factor of the first step of a warm-up: `warmup_ratio` of SegFormer's configs (NVlabs/SegFormer)."""


def check_warmup(optim: OptimConfig, steps_per_pass: int) -> None:
    """Raise UserError where a run would end before its warm-up."""
    total = optim.iterations or optim.epochs * steps_per_pass
    if optim.warmup_iterations > total:
        raise UserError(
            f"optim.warmup_iterations must be at most the steps of the run ({total}: {optim.epochs} epochs of "
            f"{steps_per_pass}) but got {optim.warmup_iterations}; lower it or train longer"
        )


def steps_of(optim: OptimConfig, epoch: int, steps_per_pass: int) -> range:
    """The 0-based steps of the 0-based `epoch`: of a pass over the data, or with `iterations` of a part of the run."""
    if optim.iterations is None:
        return range(epoch * steps_per_pass, (epoch + 1) * steps_per_pass)
    return range(epoch * optim.iterations // optim.epochs, (epoch + 1) * optim.iterations // optim.epochs)


def mean_steps(optim: OptimConfig, steps_per_pass: int) -> float:
    """The mean number of steps of an epoch."""
    return steps_per_pass if optim.iterations is None else optim.iterations / optim.epochs


def learning_rate(optim: OptimConfig, step: int, steps_per_pass: int) -> float:
    """The learning rate of the 0-based `step`: lr * (1 - done / total) ** power.

    It is multiplied by a factor that rises linearly to 1 over `warmup_iterations`, as in mmcv's `warmup: linear`.

    Schedule `to_end`: `total` is all steps of the run. `reference`: as the published code, in epochs of 1500, where the
    running epoch counts as done, a pass over the data.
    """
    if optim.schedule == "reference":
        done, total = step // steps_per_pass + 1, REFERENCE_EPOCHS
    else:
        done, total = step, optim.iterations or optim.epochs * steps_per_pass
    rate = optim.lr * max(0.0, 1.0 - done / total) ** optim.power
    if step < optim.warmup_iterations:
        rate *= 1.0 - (1.0 - step / optim.warmup_iterations) * (1.0 - WARMUP_RATIO)
    return rate
