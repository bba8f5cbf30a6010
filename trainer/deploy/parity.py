"""Compare the logits of an exported ONNX file with torch's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch

from trainer.deploy.onnx import INPUT, OUTPUT, Deployed

REQUIRED = 0.999
"""Share of pixels that must get the same class."""


class Parity(NamedTuple):
    """The result of comparing logits pixel by pixel."""

    images: int
    pixels: int
    agreeing: int  # pixels with the same class and finite logits in both
    difference: float  # the largest between two logits; infinite where one is not finite
    largest: float  # the largest finite logit of the reference, in magnitude

    @property
    def agreement(self) -> float:
        """Share of pixels with the same class; 0 without pixels."""
        return self.agreeing / max(self.pixels, 1)

    @property
    def accepted(self) -> bool:
        """Whether the agreement is at least REQUIRED."""
        return self.agreement >= REQUIRED


def compare(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Parity:
    """Compare pairs (reference, exported) of logits (N, P, h, w); a pixel not finite in either counts as different."""
    images = pixels = agreeing = 0
    difference = largest = 0.0
    for reference, exported in pairs:
        assert reference.shape == exported.shape, f"{reference.shape} is not {exported.shape}"
        finite = np.isfinite(reference) & np.isfinite(exported)
        same = (reference.argmax(1) == exported.argmax(1)) & finite.all(1)
        images += len(reference)
        pixels += same.size
        agreeing += int(same.sum())
        with np.errstate(invalid="ignore"):
            apart = np.where(finite, np.abs(reference - exported), np.inf)
        difference = max(difference, float(apart.max()))
        largest = max(largest, float(np.where(finite, np.abs(reference), 0.0).max()))
    return Parity(images, pixels, agreeing, difference, largest)


def open_session(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function that runs the file in onnxruntime on the CPU: images (N, H, W, 3) uint8 -> logits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def in_torch(module: Deployed) -> Callable[[np.ndarray], np.ndarray]:
    """A function that runs `module` in torch: images (N, H, W, 3) uint8 -> logits."""

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return run


def latency_ms(run: Callable[[np.ndarray], np.ndarray], image: np.ndarray, repeats: int = 10) -> float:
    """Median milliseconds for one image (1, H, W, 3), without the first call."""
    times_s = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run(image)
        times_s.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times_s[1:])
