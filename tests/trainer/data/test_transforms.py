"""Augmentation against the reference's own outputs, and what ours does better."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.config import IGNORE
from trainer.data.packs.packing import resize_image
from trainer.data.transforms import (
    augment,
    auto_class_weights,
    flip_and_shift,
    flip_and_shift_as_reference,
    quarter_label,
)

VOID = 19  # what the reference calls IGNORE
SIZE = (32, 64)
Golden = Callable[[str], dict[str, np.ndarray]]


@pytest.fixture
def example(golden: Golden) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The golden image at the reference's input size, its label at its own size, and the reference's outputs.

    The label is made of blocks: `test_labels_of_independent_pixels_equal_the_reference` sees what it cannot show.
    """
    arrays = golden("transform")
    return resize_image(arrays["image_u8"], SIZE), arrays["label_u8"], arrays


def _as_published(image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return image.transpose(2, 0, 1).astype(np.float32) / np.float32(255), np.where(label == IGNORE, VOID, label)[None]


def test_validation_equals_the_reference(example: tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]) -> None:
    image, label, arrays = example
    x, y = _as_published(image, quarter_label(label, SIZE))
    np.testing.assert_array_equal(x, arrays["val/x"])
    np.testing.assert_array_equal(y, arrays["val/y"])


def test_training_equals_the_reference_with_its_misaligned_shift(
    example: tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]],
) -> None:
    image, label, arrays = example
    cases = {key.split("/")[0] for key in arrays if key.startswith("train_")}
    assert len(cases) == 4
    for case in cases:
        flip, across, down = (int(n) for n in re.findall(r"-?\d+", case))
        moved = flip_and_shift_as_reference(image, quarter_label(label, SIZE), bool(flip), across, down)
        x, y = _as_published(*moved)
        np.testing.assert_array_equal(x, arrays[f"{case}/x"])
        np.testing.assert_array_equal(y, arrays[f"{case}/y"])


class Drawn:
    """A random generator that draws this flip and these shifts."""

    def __init__(self, flip: bool, across: int, down: int) -> None:
        self.flip, self.shifts = flip, (across, down)

    def random(self) -> float:
        """Below 0.5 for a flip."""
        return 0.0 if self.flip else 0.9

    def integers(self, *_: Any, **__: Any) -> tuple[int, int]:
        """Across and down."""
        return self.shifts


def test_labels_of_independent_pixels_equal_the_reference(golden: Golden) -> None:
    """Through `augment`, as in training: a label is reduced from its own size in one step."""
    arrays = golden("transform_noise")
    size = (64, 128)
    image, label = resize_image(arrays["image_u8"], size), arrays["label_u8"]
    np.testing.assert_array_equal(_as_published(image, quarter_label(label, size))[1], arrays["val/y"])
    cases = {key.split("/")[0] for key in arrays if key.startswith("train_")}
    assert len(cases) == 4
    for case in cases:
        flip, across, down = (int(n) for n in re.findall(r"-?\d+", case))
        drawn: Any = Drawn(bool(flip), across, down)
        moved = augment(image, label, drawn, "reference", True)
        np.testing.assert_array_equal(_as_published(*moved)[1], arrays[f"{case}/y"])
    for kind in ("standard", "none"):  # unmoved, every kind has the published label
        still: Any = Drawn(False, 0, 0)
        np.testing.assert_array_equal(_as_published(*augment(image, label, still, kind, True))[1], arrays["val/y"])


@pytest.mark.parametrize(
    ("native", "size"), [((360, 480), (96, 128)), ((333, 500), (256, 512)), ((37, 41), (64, 96)), ((64, 96), (64, 96))]
)
def test_a_quarter_label_is_pillows_nearest_neighbour_of_any_size(
    native: tuple[int, int], size: tuple[int, int]
) -> None:
    label = np.random.default_rng(3).integers(0, 256, native, dtype=np.uint8)
    pillow = Image.fromarray(label).resize((size[1] // 4, size[0] // 4), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(quarter_label(label, size), np.asarray(pillow))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("across", "down"), [(0, 0), (2, 1), (-2, -1), (1, -2)])
def test_standard_quarter_labels_move_with_the_image(flip: bool, across: int, down: int) -> None:
    """The label is twice as large as the input: a shift by one pixel of the input is one by two of the label's own."""
    label = np.random.default_rng(4).integers(0, 19, (2 * SIZE[0], 2 * SIZE[1]), dtype=np.uint8)
    drawn: Any = Drawn(flip, across, down)
    _, found = augment(np.zeros((*SIZE, 3), np.uint8), label, drawn, "standard", True)
    whole = flip_and_shift(np.zeros((*label.shape, 3), np.uint8), label, flip, 2 * across, 2 * down)[1]
    np.testing.assert_array_equal(found, quarter_label(whole, SIZE))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("across", "down"), [(0, 0), (2, 1), (-2, -1), (1, -2)])
def test_image_and_label_move_together_and_nothing_uncovered_counts(flip: bool, across: int, down: int) -> None:
    label = np.random.default_rng(0).integers(0, 19, SIZE, dtype=np.uint8)
    image = np.repeat(label[..., None] + 1, 3, axis=2)
    moved_image, moved_label = flip_and_shift(image, label, flip, across, down)
    valid = moved_label != IGNORE
    np.testing.assert_array_equal(moved_image[..., 0][valid], moved_label[valid] + 1)
    assert (moved_image[~valid] == 0).all()
    assert (~valid).sum() == 32 * 64 - (32 - abs(down)) * (64 - abs(across))


@pytest.mark.parametrize("quarter", [False, True])
def test_standard_keeps_the_label_over_its_pixels(quarter: bool) -> None:
    label = np.random.default_rng(1).integers(0, 19, SIZE, dtype=np.uint8)
    image = np.repeat(label[..., None] + 1, 3, axis=2)
    for seed in range(30):
        new_image, new_label = augment(image, label, np.random.default_rng(seed), "standard", quarter)
        seen = new_image[2::4, 2::4, 0] if quarter else new_image[..., 0]
        assert new_label.shape == seen.shape
        np.testing.assert_array_equal(seen, np.where(new_label == IGNORE, 0, new_label + 1))


def test_reference_does_not(example: tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]) -> None:
    """The two kinds draw the same flips and shifts: equal images, different labels."""
    image, label, _ = example
    differing = 0
    for seed in range(10):
        ours = augment(image, label, np.random.default_rng(seed), "standard", True)
        theirs = augment(image, label, np.random.default_rng(seed), "reference", True)
        np.testing.assert_array_equal(ours[0], theirs[0])
        differing += not np.array_equal(ours[1], theirs[1])
    assert differing >= 8


def test_draws_cover_both_flips_and_all_shifts_evenly() -> None:
    ramp = np.add.outer(np.arange(32) * 7, np.arange(64) * 3 % 200).astype(np.uint8)
    image = np.repeat(ramp[..., None], 3, axis=2)
    seen = set()
    for seed in range(600):
        moved, _ = augment(image, ramp, np.random.default_rng(seed), "standard", False)
        seen.add(moved.tobytes())
    assert len(seen) == 2 * 5 * 5


def test_none_changes_nothing() -> None:
    label = np.random.default_rng(2).integers(0, 19, SIZE, dtype=np.uint8)
    image = np.repeat(label[..., None], 3, axis=2)
    same, quarter = augment(image, label, np.random.default_rng(0), "none", True)
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(quarter, label[2::4, 2::4])


def test_class_weights_follow_the_frequencies() -> None:
    weights = auto_class_weights(np.array([500, 480, 20, 0], np.int64))
    expected = 1 / np.log(1.10 + np.array([0.5, 0.48, 0.02, 0.0]))
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert weights.dtype == np.float32
    assert weights[3] == weights.max()
