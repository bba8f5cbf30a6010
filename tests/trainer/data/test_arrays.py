"""Arrays of .npy files, which several threads read while a data set is packed."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from trainer.data.arrays import read_array


def give_way(phase: str, info: dict[str, int]) -> None:
    """Let another thread run, as any finaliser may."""
    time.sleep(0)


@pytest.fixture
def restless() -> Iterator[None]:
    """Garbage is collected at almost every allocation, and threads change then."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5)
    gc.callbacks.append(give_way)
    yield
    gc.callbacks.remove(give_way)
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


@pytest.mark.slow  # a full collection takes long in a process of many tests
def test_several_threads_read_at_once(tmp_path: Path, restless: None) -> None:
    np.save(tmp_path / "array.npy", np.arange(6).reshape(2, 3))
    with ThreadPoolExecutor(8) as pool:
        for array in pool.map(read_array, [tmp_path / "array.npy"] * 4000):
            assert array.shape == (2, 3)
