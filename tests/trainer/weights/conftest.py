"""Networks with the golden weights."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from trainer.config import ModelConfig
from trainer.models import SegModel, build_model


@pytest.fixture(scope="session")
def filled() -> dict[str, SegModel]:
    return {}


@pytest.fixture
def source(filled: dict[str, SegModel], fill: SimpleNamespace) -> Callable[[str], SegModel]:
    """source("segformer_b0") -> the network with the golden weights; treat it as read-only."""

    def make(name: str) -> SegModel:
        if name not in filled:
            filled[name] = fill.model(build_model(ModelConfig(name=name), 20)).eval()
        return filled[name]

    return make
