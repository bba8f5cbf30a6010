"""The learning rate of every step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from trainer.config import OptimConfig
from trainer.training.schedule import learning_rate


def rates(optim: OptimConfig, steps_per_epoch: int) -> list[float]:
    return [learning_rate(optim, step, steps_per_epoch) for step in range(optim.epochs * steps_per_epoch + 1)]


def test_linear_decay_starts_at_lr_and_reaches_0_exactly_after_the_last_step() -> None:
    values = rates(OptimConfig(lr=6e-5, epochs=3), 7)
    assert values[0] == 6e-5
    assert values[21] == 0
    assert values[20] == pytest.approx(6e-5 / 21)
    assert all(a > b for a, b in pairwise(values))
    assert values[10] - values[11] == pytest.approx(6e-5 / 21)


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(1, 1), (10, 3), (1000, 371)])
def test_the_end_is_exact_for_any_length(epochs: int, steps_per_epoch: int) -> None:
    optim = OptimConfig(epochs=epochs)
    assert learning_rate(optim, epochs * steps_per_epoch, steps_per_epoch) == 0
    assert learning_rate(optim, epochs * steps_per_epoch - 1, steps_per_epoch) > 0


def test_power() -> None:
    assert learning_rate(OptimConfig(lr=1.0, epochs=4, power=2.0), 1, 1) == pytest.approx(0.75**2)


def test_reference_schedule_is_the_published_one(golden: Any) -> None:
    """An epoch is trained at the rate that the published code has after the epochs before it."""
    expected = golden("lr_poly")["lr_after_n_epochs_f64"]
    optim = OptimConfig(lr=6e-5, epochs=1600, schedule="reference")
    for epoch in range(1600):
        first, last = (learning_rate(optim, step, 5) for step in (epoch * 5, epoch * 5 + 4))
        assert first == last == pytest.approx(float(expected[epoch]), rel=1e-9, abs=1e-18)


def test_a_warm_up_rises_linearly_to_the_decayed_rate() -> None:
    """mmcv: lr * (1 - (1 - step / warmup) * (1 - 1e-6)) of the regular rate."""
    plain, warm = OptimConfig(lr=1.0, epochs=2), OptimConfig(lr=1.0, epochs=2, warmup_iterations=4)
    regular, found = rates(plain, 8), rates(warm, 8)
    assert found[0] == pytest.approx(1e-6)
    assert found[2] == pytest.approx(regular[2] * (1 - 0.5 * (1 - 1e-6)))
    assert found[4:] == regular[4:]
    assert all(a < b for a, b in pairwise(found[:5]))
