"""Predictions as `eval` asks for them: windows, mirror images and scales, each held against the same done by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import DataConfig, EvalConfig, ModelConfig, UserError, parse
from trainer.data import PackedSplit, open_dataset, pack
from trainer.data.stream import normalise
from trainer.models import build_model
from trainer.models.base import SegModel
from trainer.rng import initialising
from trainer.training.evaluation.evaluate import evaluate
from trainer.training.evaluation.inference import in_windows, logits_of, resized, starts
from trainer.training.evaluation.prediction import class_of

SIZE = (64, 96)
DATA = DataConfig(size=SIZE, options={"train": 1, "val": 3, "size": [128, 192]})
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> SegModel:
    with initialising(0, "inference"):
        return build_model(ModelConfig(name="segformer_tiny"), 19).eval()


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> PackedSplit:
    cache = tmp_path_factory.mktemp("cache")
    return pack(open_dataset(DATA, None, cache), DATA, "val", cache)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)


def how(**given: Any) -> EvalConfig:
    return EvalConfig(**given)


def slide(window: tuple[int, int], stride: tuple[int, int], **more: Any) -> EvalConfig:
    return EvalConfig(inference="slide", window=window, stride=stride, **more)


def as_input(images: np.ndarray) -> Tensor:
    return normalise(torch.from_numpy(images).permute(0, 3, 1, 2), "imagenet")


@torch.no_grad()
def views(model: SegModel, images: np.ndarray, how: EvalConfig) -> tuple[Tensor, ...]:
    return logits_of(model, images, DATA, CPU, how=how)


def test_a_window_as_large_as_the_image_is_whole(model: SegModel, images: np.ndarray) -> None:
    (whole,), (slid,) = views(model, images, how()), views(model, images, slide(SIZE, SIZE))
    assert torch.equal(whole, slid)


@pytest.mark.parametrize(("window", "stride"), [((32, 32), (32, 32)), ((32, 48), (16, 20)), ((64, 40), (64, 28))])
@torch.no_grad()
def test_windows_that_overlap_are_averaged(
    model: SegModel, images: np.ndarray, window: tuple[int, int], stride: tuple[int, int]
) -> None:
    """Against the mean over all windows that cover a position, position by position."""
    image = as_input(images)
    tops, lefts = (
        sorted({min(k * step, side - own) for k in range(side) if k * step < side - own + step})
        for side, own, step in zip(SIZE, window, stride, strict=True)
    )
    found: dict[tuple[int, int], list[Tensor]] = {}
    for top in tops:
        for left in lefts:
            logits = model(image[:, :, top : top + window[0], left : left + window[1]]).logits
            assert logits is not None
            for row in range(window[0] // 4):
                for column in range(window[1] // 4):
                    place = (top // 4 + row, left // 4 + column)
                    found.setdefault(place, []).append(logits[:, :, row, column])
    assert len(found) == SIZE[0] * SIZE[1] // 16, "no gap"
    (ours,) = views(model, images, slide(window, stride))
    for (row, column), covering in found.items():
        torch.testing.assert_close(ours[:, :, row, column], torch.stack(covering).mean(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [32, 36, 64, 100])
@pytest.mark.parametrize(("window", "stride"), [(32, 4), (32, 20), (32, 32), (64, 36)])
def test_windows_cover_an_axis_and_end_at_its_border(length: int, window: int, stride: int) -> None:
    first, *more = begins = starts(length, window, stride)
    assert first == 0
    assert begins == sorted(set(begins))
    assert begins[-1] == max(length - window, 0)
    assert all(0 < b - a <= stride for a, b in zip(begins, more, strict=False))


def test_a_window_is_cut_to_a_scaled_image(model: SegModel, images: np.ndarray) -> None:
    small = slide((64, 64), (32, 32), scales=(0.5,))
    (logits,) = views(model, images, small)
    assert logits.shape == (2, 19, 8, 12)
    with torch.no_grad():
        by_hand = in_windows(model, resized(as_input(images), 0.5), (32, 64), (32, 32))
    assert torch.equal(logits, by_hand)


@pytest.mark.slow
@torch.no_grad()
def test_mirrored_and_scaled_views_average_probabilities(model: SegModel, images: np.ndarray) -> None:
    """As mmsegmentation does: each view upsampled to the label's size, then its softmax, then the mean."""
    asked = how(flip=True, scales=(0.75, 1.0, 1.5))
    found = class_of(views(model, images, asked), (128, 192))
    total = torch.zeros(2, 19, 128, 192)
    for size in ((48, 72), SIZE, (96, 144)):
        image = F.interpolate(as_input(images), size=size, mode="bilinear", antialias=True)
        image = as_input(images) if size == SIZE else image
        for turned in (image, image.flip(3)):
            logits = model(turned).logits
            assert logits is not None
            logits = logits.flip(3) if turned is not image else logits
            total += F.interpolate(logits, size=(128, 192), mode="bilinear").softmax(1)
    assert torch.equal(found, (total / 6).argmax(1))
    assert not torch.equal(found, class_of(views(model, images, how()), (128, 192))), "views agree: nothing is tested"


@torch.no_grad()
def test_a_mirrored_image_gets_the_mirrored_prediction(model: SegModel, images: np.ndarray) -> None:
    asked = how(flip=True)
    there, back = (views(model, given, asked) for given in (images, images[:, :, ::-1].copy()))
    torch.testing.assert_close(there[0], back[1].flip(3))
    torch.testing.assert_close(there[1], back[0].flip(3))


def test_probabilities_of_equal_views_choose_as_one(model: SegModel, images: np.ndarray) -> None:
    (one,) = views(model, images, how())
    assert torch.equal(class_of([one, one], (64, 96)), class_of([one], (64, 96)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [slide((32, 48), (16, 24)), how(flip=True), how(scales=(0.5, 1.0)), slide((32, 48), (32, 32), flip=True)],
    ids=["slide", "flip", "scales", "slide and flip"],
)
def test_validation_does_not_depend_on_the_batch(model: SegModel, val: PackedSplit, asked: EvalConfig) -> None:
    names = tuple(f"class{i}" for i in range(19))
    one, three = (
        evaluate(model, val, names, DATA, ("full", "paper"), batch=batch, how=asked)["val/miou"] for batch in (1, 3)
    )
    assert one == pytest.approx(three, abs=0.05)
    whole = evaluate(model, val, names, DATA, ("full", "paper"))
    assert whole["val/miou"] != one


def test_a_scale_keeps_the_network_s_stride() -> None:
    image = torch.rand(1, 3, 64, 96)
    assert resized(image, 1.0) is image
    assert resized(image, 0.75).shape[2:] == (48, 72)
    assert resized(image, 0.3).shape[2:] == (32, 32)
    assert resized(image, 1.1).shape[2:] == (72, 104)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"inference": "slide"}, "eval: inference: slide needs window"),
        ({"inference": "slide", "window": [32, 32]}, "needs stride"),
        ({"window": [32, 32]}, "window only applies with inference: slide"),
        ({"inference": "slide", "window": [32, 32], "stride": [36, 32]}, "as windows may leave no gap, but got 36"),
        ({"inference": "slide", "window": [32, 32], "stride": [32, 6]}, "stride must be a multiple of 4"),
        (
            {"inference": "slide", "window": [96, 64], "stride": [32, 32]},
            r"must fit into data.size \(64x96\) but got 96",
        ),
        ({"scales": []}, "scales must be one or more different numbers"),
        ({"scales": [1.0, 1]}, "scales must be one or more different numbers"),
        ({"scales": [0]}, "eval.scales.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse({"data": {"size": list(SIZE)}, "eval": asked})


def test_settings_of_inference_leave_old_keys_alone() -> None:
    plain = {"data": {"size": list(SIZE)}}
    stated = {"inference": "whole", "window": None, "stride": None, "flip": False, "scales": [1]}
    assert parse({**plain, "eval": stated}).key == parse(plain).key
    changed = [{"flip": True}, {"scales": [1, 2]}, {"inference": "slide", "window": [32, 32], "stride": [32, 32]}]
    assert len({parse({**plain, "eval": given}).key for given in ({}, *changed)}) == 4
