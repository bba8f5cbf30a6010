"""Runs that train side by side, and the same runs alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.training.cohorts import Side, nothing
from trainer.config import TrainConfig
from trainer.place import Place
from trainer.training.loop import fit

Make = Callable[..., Any]


@pytest.fixture
def side(tmp_path: Path, scenes_cache: Path) -> Side:
    return Side(tmp_path, scenes_cache)


@pytest.fixture(scope="session")
def alone(tiny: Make, scenes_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """alone(config, micro_batch=2) -> the folder of the run that trained alone, once a session."""
    known: dict[str, Path] = {}

    def train(config: TrainConfig, **place: Any) -> Path:
        name = f"{config.key}{place}"
        if name not in known:
            known[name] = tmp_path_factory.mktemp("alone") / "run"
            fit(config, Place(out_dir=known[name], cache_dir=scenes_cache, device="cpu", **place), report=nothing)
        return known[name]

    return train
