"""What every entry of AUGMENTATIONS promises, each step against a plain reference, and what is refused."""

from __future__ import annotations

import colorsys
import itertools
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer import rng
from trainer.config import IGNORE, UserError, parse
from trainer.data import check_data, train_size
from trainer.data.augmentations import AUGMENTATIONS, Augmentation, Sample
from trainer.data.augmentations.base import Sizes
from trainer.data.augmentations.blur import smooth
from trainer.data.augmentations.crop import Crop
from trainer.data.augmentations.photometric import Photometric, recoloured
from trainer.data.augmentations.scale import Scale

SIZE = (48, 68)
FILL = np.array([124, 116, 104], np.uint8)
NEEDED: dict[str, dict[str, Any]] = {"crop": {"size": [44, 36]}}
"""Options without a default."""
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, NEEDED.get(name, {})) for name in AUGMENTATIONS),
    ("scale", {"range": [0.6, 0.6]}),
    ("crop", {"size": [44, 36], "cat_max_ratio": 0.75}),
    ("flip", {"probability": 1}),
    ("photometric", {"brightness": 0, "hue": 180}),
    ("blur", {"sigma": [2, 3], "probability": 1}),
    ("shift", {"pixels": 20}),
]
every_case = pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else str(v))
ROUNDS = 25


def made(name: str, options: dict[str, Any]) -> Augmentation:
    return AUGMENTATIONS[name](**options)


def a_sample(seed: int = 0, size: tuple[int, int] = SIZE) -> Sample:
    """Noise, whose label has eleven classes and pixels that are ignored."""
    draw = np.random.default_rng(seed)
    label = draw.integers(0, 11, size, dtype=np.uint8)
    label[draw.random(size) < 0.1] = IGNORE
    return Sample(draw.integers(0, 256, (*size, 3), dtype=np.uint8), label, FILL)


def told(sample: Sample) -> Sample:
    """The sample whose image shows its label: each channel holds the label's value."""
    return sample._replace(image=np.repeat(sample.label[..., None], 3, axis=2), fill=np.full(3, IGNORE, np.uint8))


def draws(name: str, epoch: int) -> np.random.Generator:
    return rng.generator(3, f"augment {name}", epoch, 5)


@every_case
def test_a_step_keeps_types_and_its_word_about_sizes(name: str, options: dict[str, Any]) -> None:
    step = made(name, options)
    bounds = step.sizes(Sizes(SIZE, SIZE))
    for epoch in range(ROUNDS):
        found = step(a_sample(epoch), draws(name, epoch))
        assert (found.image.dtype, found.label.dtype) == (np.uint8, np.uint8)
        assert found.image.shape == (*found.label.shape, 3)
        for side, least, most in zip(found.label.shape, *bounds, strict=True):
            assert least <= side <= most


@every_case
def test_a_step_changes_what_it_returns_and_not_what_it_is_given(name: str, options: dict[str, Any]) -> None:
    step, sample, changed = made(name, options), a_sample(), 0
    kept = [part.copy() for part in sample]
    for part in sample:
        part.flags.writeable = False  # as the rows of a packed split are
    for epoch in range(ROUNDS):
        found = step(sample, draws(name, epoch))
        changed += not np.array_equal(found.image, sample.image)
    assert all(np.array_equal(part, before) for part, before in zip(sample, kept, strict=True))
    assert changed >= ROUNDS / 5


@every_case
def test_a_step_depends_on_its_draws_alone(name: str, options: dict[str, Any]) -> None:
    one, other = made(name, options), made(name, options)
    forward = [one(a_sample(), draws(name, epoch)) for epoch in range(ROUNDS)]
    backward = [other(a_sample(), draws(name, epoch)) for epoch in reversed(range(ROUNDS))]
    for a, b in zip(forward, reversed(backward), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@every_case
def test_a_label_stays_a_label(name: str, options: dict[str, Any]) -> None:
    """No class is invented, as an interpolation between two would, and what is ignored stays so."""
    step = made(name, options)
    label = np.where(np.random.default_rng(0).random(SIZE) < 0.5, 2, 9).astype(np.uint8)
    label[:, ::5] = IGNORE
    for epoch in range(ROUNDS):
        found = step(a_sample()._replace(label=label), draws(name, epoch)).label
        assert set(np.unique(found)) <= {2, 9, IGNORE}
        ignored = step(a_sample()._replace(label=np.full(SIZE, IGNORE, np.uint8)), draws(name, epoch)).label
        assert (ignored == IGNORE).all()


@pytest.mark.parametrize(("name", "options"), [case for case in CASES if case[0] in ("crop", "flip", "shift")])
def test_image_and_label_move_together(name: str, options: dict[str, Any]) -> None:
    step = made(name, options)
    for epoch in range(ROUNDS):
        found = step(told(a_sample(epoch)), draws(name, epoch))
        np.testing.assert_array_equal(found.image, np.repeat(found.label[..., None], 3, axis=2))


def test_a_scaled_sample_moves_together() -> None:
    """Of blocks, away from their borders: the image is interpolated and the label is not."""
    blocks = np.add.outer(np.arange(6) * 7, np.arange(8)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    sample = Sample(np.repeat(blocks[..., None], 3, axis=2), blocks, FILL)
    for epoch in range(ROUNDS):
        found = Scale(range=(0.5, 2.0))(sample, draws("scale", epoch))
        agree = found.image[..., 0] == found.label
        assert agree.mean() > 0.5
        assert abs(found.image[..., 0].astype(int) - found.label).max() <= 7 * 2 + 2


@pytest.mark.parametrize("factor", [0.5, 0.73, 1.0, 1.31, 2.0])
def test_scale_is_pillows_resize_and_nearest_neighbour(factor: float) -> None:
    sample = a_sample()
    found = Scale(range=(factor, factor))(sample, draws("scale", 0))
    height, width = (int(side * factor + 0.5) for side in SIZE)
    assert found.label.shape == (height, width)
    for row, column in itertools.product(range(height), range(width)):
        centres = [(row + 0.5) * SIZE[0] / height, (column + 0.5) * SIZE[1] / width]
        if any(abs(centre - round(centre)) < 1e-6 for centre in centres):
            continue  # on the border of two pixels, where rounding decides
        down, across = map(int, centres)
        assert found.label[row, column] == sample.label[down, across]
    resized = Image.fromarray(sample.image).resize((width, height), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found.image, np.asarray(resized))


def test_factors_are_uniform() -> None:
    sample, step = a_sample(size=(100, 4)), Scale(range=(0.5, 2.0))
    heights = np.array([step(sample, draws("scale", epoch)).label.shape[0] for epoch in range(400)])
    assert heights.min() < 55 and heights.max() > 195
    assert abs(heights.mean() - 125) < 8


def test_a_crop_is_a_window_and_all_places_occur() -> None:
    sample, step = a_sample(size=(34, 35)), Crop(size=(32, 32))
    windows = {
        (top, left): sample.label[top : top + 32, left : left + 32].tobytes() for top in range(3) for left in range(4)
    }
    found = {step(sample, draws("crop", epoch)).label.tobytes() for epoch in range(300)}
    assert found == set(windows.values())


@pytest.mark.parametrize("size", [(20, 80), (80, 20), (20, 20), (64, 64)])
def test_a_crop_pads_what_is_too_small_to_the_right_and_below(size: tuple[int, int]) -> None:
    sample, step = a_sample(size=size), Crop(size=(64, 64))
    found = step(sample, draws("crop", 1))
    height, width = (min(side, 64) for side in size)
    assert (found.label[height:] == IGNORE).all() and (found.label[:, width:] == IGNORE).all()
    assert (found.image[height:] == FILL).all() and (found.image[:, width:] == FILL).all()
    inside = found.label[:height, :width]
    places = itertools.product(range(size[0] - height + 1), range(size[1] - width + 1))
    assert any(np.array_equal(inside, sample.label[t : t + height, left : left + width]) for t, left in places)


def test_a_crop_avoids_windows_of_one_class() -> None:
    """As mmsegmentation's: another window while a class has its share of the labelled pixels or more."""
    label = np.zeros((32, 320), np.uint8)
    label[:, 160:] = np.random.default_rng(0).integers(1, 11, (32, 160))
    sample = Sample(np.zeros((32, 320, 3), np.uint8), label, FILL)

    def share(step: Crop, epoch: int) -> float:
        counts = np.bincount(step(sample, draws("crop", epoch)).label.ravel(), minlength=256)[:IGNORE]
        return float(counts.max() / counts.sum())

    free, limited = (
        [share(Crop(size=(32, 32), cat_max_ratio=ratio), epoch) for epoch in range(60)] for ratio in (1.0, 0.75)
    )
    assert sum(value >= 0.75 for value in free) > 20
    assert sum(value >= 0.75 for value in limited) <= 1
    assert Crop(size=(32, 32), cat_max_ratio=0.75)(
        sample._replace(label=np.full((32, 320), IGNORE, np.uint8)), draws("crop", 0)
    ).label.shape == (32, 32)


def _as_published(image: np.ndarray, factor: float, added: float) -> np.ndarray:
    """Value by value."""
    cut = [min(max(np.float32(value) * np.float32(factor) + np.float32(added), 0), 255) for value in image.ravel()]
    return np.array([int(value) for value in cut], np.uint8).reshape(image.shape)


class Drawn:
    """A generator that draws these: which of five distortions there are, and their values in order."""

    def __init__(self, on: list[bool], values: list[float]) -> None:
        self.on, self.values = on, iter(values)

    def random(self, _: int) -> np.ndarray:
        return np.where(self.on, 0.0, 0.9)

    def uniform(self, low: float, high: float) -> float:
        value = next(self.values)
        assert low <= value <= high
        return value


@pytest.mark.parametrize("first", [True, False])
def test_brightness_and_contrast_are_those_of_the_source(first: bool) -> None:
    image = a_sample(size=(8, 9)).image
    drawn: Any = Drawn([True, True, False, False, first], [-21.3, 1.37])
    found = Photometric()(Sample(image, image[..., 0], FILL), drawn).image
    expected = _as_published(_as_published(image, 1.0, -21.3), 1.37, 0.0)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("saturation", "degrees"), [(1.0, 0.0), (0.5, 0.0), (1.5, 0.0), (1.0, 36.0), (0.7, -120.0)])
def test_saturation_and_hue_are_those_of_hsv(saturation: float, degrees: float) -> None:
    """Pixel by pixel in floating point; a space of 8 bits rounds hue and saturation to 256 values."""
    image = a_sample(size=(24, 25)).image
    found = recoloured(image, saturation, degrees)
    for pixel, ours in zip(image.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        hue, colour, value = colorsys.rgb_to_hsv(*(pixel / 255))
        theirs = colorsys.hsv_to_rgb((hue + degrees / 360) % 1, min(colour * saturation, 1.0), value)
        assert abs(np.array(theirs) * 255 - ours).max() < 8


def test_each_distortion_happens_half_of_the_time() -> None:
    grey = Sample(np.full((4, 4, 3), 100, np.uint8), np.zeros((4, 4), np.uint8), FILL)
    step = Photometric(brightness=20, contrast=(1, 1))
    found = [step(grey, draws("photometric", epoch)).image[0, 0, 0] for epoch in range(400)]
    assert 0.4 < np.mean([value == 100 for value in found]) < 0.62
    assert min(found) >= 80 and max(found) <= 120


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0])
def test_blur_is_a_gaussian(sigma: float) -> None:
    """Against a sum over both axes at once, with the border repeated."""
    image = a_sample(size=(20, 17)).image
    reach = int(np.ceil(3 * sigma))
    offsets = range(-reach, reach + 1)
    weights = {
        (down, across): np.exp(-(down**2 + across**2) / (2 * sigma**2))
        for down, across in itertools.product(offsets, offsets)
    }
    expected = np.zeros(image.shape)
    for row, column in itertools.product(range(20), range(17)):
        for (down, across), weight in weights.items():
            expected[row, column] += weight * image[min(max(row + down, 0), 19), min(max(column + across, 0), 16)]
    expected /= sum(weights.values())
    assert abs(smooth(image, sigma) - expected).max() <= 0.51


def test_a_step_takes_images_of_any_number_of_channels() -> None:
    label = a_sample().label
    for name in ("crop", "flip", "photometric", "blur", "shift"):
        for channels in (1, 5):
            image = np.random.default_rng(1).integers(0, 256, (*SIZE, channels), dtype=np.uint8)
            sample = Sample(image, label, np.zeros(channels, np.uint8))
            assert made(name, NEEDED.get(name, {}))(sample, draws(name, 0)).image.shape[2] == channels


BAD: list[tuple[Any, str]] = [
    (["scael"], r"data.augment: unknown step 'scael'; did you mean 'scale'\?"),
    ([{"flip": {"chance": 1}}], "data.augment.flip: unknown option 'chance'"),
    (["crop"], "data.augment.crop: the option 'size' has no default"),
    ([{"crop": {"size": 64}}], r"data.augment.crop: size must be \[height, width\] in pixels but got 64"),
    ([{"crop": {"size": [64, 66]}}], "data.augment.crop: size: width must be a multiple of 4 .* but got 66"),
    ([{"crop": {"size": [128, 64]}}], "crop: size must fit into the largest image before it, of 64x96, .* is 128"),
    (
        [{"scale": {"range": [0.5, 1.5]}}, {"crop": {"size": [96, 160]}}],
        "largest image before it, of 96x144, but its width is 160; lower it, or raise data.size or the range of scale",
    ),
    (["scale"], "images of a batch must have one size, but end between 32x48 and 128x192; add crop after scale"),
    ([{"crop": {"size": [64, 64]}}, "scale"], "add crop after scale"),
    ([{"scale": {"range": [2, 0.5]}}], r"data.augment.scale: range must be \[least, most\], but \[2, 0.5\] is empty"),
    ([{"scale": {"range": [0, 1]}}], "range must lie between 0.05 and 16"),
    ([{"scale": {"range": 2}}], r"range must be \[least, most\] but got 2"),
    ([{"photometric": {"hue": 200}}], "hue must be a number from 0 to 180 but got 200"),
    ([{"photometric": {"contrast": [1.5, 0.5]}}], "contrast must be .* is empty"),
    ([{"blur": {"sigma": [0, 1]}}], "sigma must lie between 0.01 and 50"),
    ([{"flip": {"probability": True}}], "probability must be a number from 0 to 1 but got True"),
    ([{"shift": {"pixels": 64}}], "pixels must be below the sides of the smallest image, of 64x96, but got 64"),
    ([{"shift": {"pixels": 1.5}}], "pixels must be a whole number"),
    (["flip", "flip"], "augment must have each step at most once, but has flip twice"),
    ([{"scale": {}, "flip": {}}], r"a step is NAME or \{NAME: \{OPTION: VALUE\}\}"),
    ([3], "data.augment.0: a step is NAME"),
    ([], "data.augment: .*needs 1 or more"),
    ({"flip": {}}, "data.augment: .* a list is expected"),
    ("heavy", "data.augment: .*'standard', 'reference' or 'none', or a list"),
]


@pytest.mark.parametrize(("augment", "message"), BAD, ids=lambda v: str(v)[:40])
def test_what_cannot_be_applied_is_refused(augment: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_data(parse({"data": {"size": [64, 96], "augment": augment}}).data)


def test_a_step_has_one_form_in_the_key() -> None:
    short, long = (
        ["flip", {"crop": {"size": [64, 64]}}],
        [
            {"name": "flip", "options": {}},
            {"name": "crop", "options": {"size": [64, 64]}},
        ],
    )
    one, other = (parse({"data": {"size": [64, 96], "augment": given}}) for given in (short, long))
    assert one.key == other.key
    assert parse(one.model_dump(mode="json")) == one
    turned = parse({"data": {"size": [64, 96], "augment": short[::-1]}})
    assert turned.key != one.key, "their order matters"
    assert train_size(one.data) == (64, 64)
