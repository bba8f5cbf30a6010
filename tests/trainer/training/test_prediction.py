"""class_of_logits(): in less memory and time, the very pixels that the argmax of whole upsampled images gives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.training.evaluation import prediction
from trainer.training.evaluation.prediction import class_of_logits

SIZES = [(97, 211), (360, 480), (375, 500), (129, 1), (65, 64), (64, 64), (63, 65), (33, 29), (31, 57)]
"""(H, W), most of them odd, on both sides of the size from which torch takes another kernel."""


def by_hand(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Image by image, whole."""
    one_by_one = [F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in logits.split(1)]
    return torch.cat(one_by_one).argmax(1)


def noise(outputs: int, height: int, width: int, images: int = 2) -> Tensor:
    return torch.randn(images, outputs, height, width, generator=torch.Generator().manual_seed(height * width))


def layouts(logits: Tensor) -> list[Tensor]:
    """As networks and slices of their logits lie in memory."""
    return [logits, logits.contiguous(memory_format=torch.channels_last), logits[:, :-1]]


@pytest.fixture(params=[1, 40_000, 10**9], ids=["least", "some", "all"])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How much is upsampled at once."""
    monkeypatch.setitem(prediction.AT_ONCE, "cpu", request.param)
    return int(request.param)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("outputs", [3, 4, 19])
def test_every_pixel_is_that_of_the_whole(size: tuple[int, int], outputs: int, at_once: int) -> None:
    for height, width in ((24, 32), (31, 57), (13, 120)):
        for values in layouts(noise(outputs, height, width)):
            assert torch.equal(class_of_logits(values, size), by_hand(values, size)), (height, width)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("width", [57, 128, 211])
def test_every_pixel_of_a_strip_is_that_of_the_whole(factor: int, width: int, at_once: int) -> None:
    """A power of two downwards, and any factor across."""
    for height in (3, 31, 40):
        for values in layouts(noise(19, height, 33)):
            size = (height * factor, width)
            assert torch.equal(class_of_logits(values, size), by_hand(values, size)), height


def test_strips_are_taken_where_they_are_exact_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    interpolate = F.interpolate

    def watched(values: Tensor, **rest: Any) -> Tensor:
        result: Tensor = interpolate(values, **rest)
        made.append(result.numel())
        return result

    monkeypatch.setattr(prediction.F, "interpolate", watched)
    monkeypatch.setitem(prediction.AT_ONCE, "cpu", 100_000)
    logits = noise(19, 24, 32)
    for size, most in (((192, 256), 19 * 4 * 8 * 256), ((360, 480), 19 * 360 * 480), ((192, 127), 19 * 192 * 127)):
        made.clear()
        class_of_logits(logits, size)
        assert max(made) == most, size


def test_of_equal_values_the_first_class_wins() -> None:
    """Upsampled whole numbers are often equal."""
    logits = noise(19, 24, 32).round()
    assert (logits.topk(2, 1).values.diff(dim=1) == 0).any()
    for size in ((360, 480), (192, 256)):
        assert torch.equal(class_of_logits(logits, size), by_hand(logits, size))
    assert torch.equal(class_of_logits(logits, (24, 32)), logits.argmax(1))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_ordered_as_before(wrong: float) -> None:
    logits = noise(19, 24, 32)
    logits[0, 3:5, 5] = wrong
    logits[1] = wrong
    for size in ((360, 480), (1536, 2048)):
        assert torch.equal(class_of_logits(logits, size), by_hand(logits, size))
