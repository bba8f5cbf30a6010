"""Runs that train side by side: each has the numbers that it has alone, bit for bit, whatever the settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.trainer.training.cohorts import Side, arms

pytestmark = pytest.mark.slow

Make = Callable[..., Any]

STEPS = [{"scale": {"range": [0.5, 1.5]}}, {"crop": {"size": [64, 96]}}, "flip", "photometric", "blur"]
SLIDE = {"inference": "slide", "window": [64, 64], "stride": [64, 32], "flip": True, "scales": [1.0, 1.5]}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bf16": ({"optim.precision": "bf16"}, {}),
    "held out, in micro-batches": ({"data.select": 0.25}, {"micro_batch": 2}),
    "steps and windows": (
        {"data.augment": STEPS, **{f"eval.{name}": value for name, value in SLIDE.items()}},
        {},
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_member_is_the_run_that_trained_alone(
    variant: str, tiny: Make, side: Side, alone: Make, same_run: Make
) -> None:
    changes, place = VARIANTS[variant]
    configs = arms(tiny, changes)
    assert side.train(configs, **place) == dict.fromkeys(configs)
    for name, config in configs.items():
        same_run(side.root / name, alone(config, **place))
        assert side.epochs[name] == list(range(1, config.optim.epochs + 1))
        result = json.loads((side.root / name / "result.json").read_text())
        assert result["environment"]["cohort"] == len(configs)
