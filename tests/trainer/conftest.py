"""Fixtures of the trainer's tests: golden arrays, and the rule that fills a model with weights no RNG has touched."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """golden("mit_block") -> the arrays of tests/golden/mit_block.npz by their keys."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as file:
            return {key: file[key] for key in file.files}

    return load


def _u01(k: int, n: int) -> np.ndarray:
    """n float64 numbers in [0, 1) of stream k: a 32-bit integer hash of the position, exact on every machine."""
    mask = np.uint64(0xFFFFFFFF)
    x = np.arange(n, dtype=np.uint64) * np.uint64(2654435761) + np.uint64((k * 40503 + 12345) % 2**32)
    x &= mask
    for _ in range(2):
        x ^= x >> np.uint64(16)
        x = (x * np.uint64(0x45D9F3B)) & mask
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 2**32


def _uni(k: int, shape: tuple[int, ...]) -> Tensor:
    """Float32 in [0, 1)."""
    return torch.from_numpy(_u01(k, math.prod(shape)).reshape(shape).astype(np.float32))


def _sym(k: int, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    """Float32 in [-scale, scale)."""
    values = (2.0 * _u01(k, math.prod(shape)) - 1.0) * scale
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def _entry(k: int, name: str, shape: tuple[int, ...]) -> Tensor | None:
    """Entry number k of a state dict; None for the counter that is kept."""
    scalars = {"atten_weight": 0.6, "conv_weight": 0.4}
    if name.endswith("num_batches_tracked"):
        return None
    if name.endswith("running_mean"):
        return _sym(k, shape, 0.1)
    if name.endswith("running_var"):
        return torch.from_numpy((1.0 + 0.5 * _u01(k, math.prod(shape))).reshape(shape).astype(np.float32))
    if name in scalars:
        return torch.full(shape, scalars[name])
    if name.startswith("fuse_weights."):
        return torch.full(shape, 0.1 * (int(name.split(".")[1]) + 1))
    if len(shape) >= 2:
        return _sym(k, shape, math.sqrt(3.0 / math.prod(shape[1:])))
    if name.endswith("weight"):
        return torch.from_numpy((1.0 + 0.1 * (2.0 * _u01(k, shape[0]) - 1.0)).astype(np.float32))
    return _sym(k, shape, 0.05)


@torch.no_grad()
def _model(model: nn.Module) -> nn.Module:
    """Fill every entry of `model.state_dict()` by its position and name."""
    for k, (name, tensor) in enumerate(model.state_dict().items()):
        value = _entry(k, name, tuple(tensor.shape))
        if value is not None:
            tensor.copy_(value)
    return model


@pytest.fixture
def fill() -> SimpleNamespace:
    """The fill rule of the golden files: u01(k, n), uni(k, shape), sym(k, shape), entry(k, name, shape), model(m)."""
    assert _u01(0, 4).tolist() == [0.40688223228789866, 0.4570922099519521, 0.13094620616175234, 0.8522593744564801]
    return SimpleNamespace(u01=_u01, uni=_uni, sym=_sym, entry=_entry, model=_model)
