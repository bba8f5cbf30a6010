"""Synthetic scenes: a function of their seed, in Cityscapes' layout, with every class in either split."""

from __future__ import annotations

import multiprocessing
import os
import stat
import time
from pathlib import Path

import numpy as np
import pytest

from trainer.config import IGNORE, DataConfig, UserError
from trainer.data import open_dataset
from trainer.data.cityscapes import LABEL_IDS
from trainer.data.scenes import Scenes, write_scenes
from trainer.data.synthetic.painter import paint

SMALL = {"train": 3, "val": 2, "seed": 5, "size": [48, 96]}


def test_a_picture_is_a_function_of_seed_split_and_index() -> None:
    image, label = paint(0, "train", 3, (48, 96))
    again, label_again = paint(0, "train", 3, (48, 96))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label, label_again)
    assert (image.shape, image.dtype, label.shape, label.dtype) == ((48, 96, 3), np.uint8, (48, 96), np.uint8)
    for seed, split, index in ((1, "train", 3), (0, "val", 3), (0, "train", 4)):
        assert not np.array_equal(image, paint(seed, split, index, (48, 96))[0])


@pytest.mark.slow
@pytest.mark.parametrize(("split", "count"), [("train", 240), ("val", 60)])
def test_the_default_set_holds_every_class_in_either_split(split: str, count: int) -> None:
    labels = np.stack([paint(0, split, index, (96, 192))[1] for index in range(count)])
    pictures = {name: int((labels == value).any((1, 2)).sum()) for name, value in LABEL_IDS.items()}
    assert len(pictures) == 19
    assert min(pictures.values()) >= count // 20, pictures
    assert 0 < (~np.isin(labels, list(LABEL_IDS.values()))).mean() < 0.15


@pytest.mark.slow
def test_colour_alone_does_not_give_the_class_away(tmp_path: Path) -> None:
    """A lookup from quantised colour and image row to the commonest class, made on train, fails on val."""
    data = Scenes(None, cache=tmp_path, train=60, val=20)
    seen, matrix = np.zeros((8**3 * 6, 19), np.int64), np.zeros((19, 19), np.int64)
    for pair in data.pairs("train"):
        cell, label = _cells(*data.read(pair))
        np.add.at(seen, (cell, label), 1)
    for pair in data.pairs("val"):
        cell, label = _cells(*data.read(pair))
        np.add.at(matrix, (label, seen.argmax(1)[cell]), 1)
    iou = np.diag(matrix) / (matrix.sum(0) + matrix.sum(1) - np.diag(matrix))
    assert 0.05 < iou.mean() < 0.25


def _cells(image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the pixels that count: which of 8**3 colours and 6 bands of the picture, and the class."""
    red, green, blue = (image[..., channel].astype(int) // 32 for channel in range(3))
    band = np.arange(96)[:, None] // 16
    return (((red * 8 + green) * 8 + blue) * 6 + band)[label != IGNORE], label[label != IGNORE]


def test_cityscapes_reads_what_was_written(tmp_path: Path) -> None:
    write_scenes(tmp_path / "root", train=3, val=2, seed=5, size=(48, 96))
    city = tmp_path / "root" / "leftImg8bit" / "train" / "synthetic"
    assert (city / "synthetic_000000_000019_leftImg8bit.png").is_file()
    made = open_dataset(DataConfig(name="scenes", options=SMALL), None, tmp_path / "cache")
    read = open_dataset(DataConfig(name="cityscapes"), tmp_path / "root", tmp_path / "cache")
    for split, count in (("train", 3), ("val", 2)):
        pairs = list(zip(made.pairs(split), read.pairs(split), strict=True))
        assert len(pairs) == count
        for ours, theirs in pairs:
            assert ours.stem == theirs.stem
            for a, b in zip(made.read(ours), read.read(theirs), strict=True):
                np.testing.assert_array_equal(a, b)


def test_more_pictures_leave_the_first_as_they_were(tmp_path: Path) -> None:
    few = Scenes(None, cache=tmp_path, train=2, val=1, size=(48, 96))
    more = Scenes(None, cache=tmp_path, train=4, val=1, size=(48, 96))
    for a, b in zip(few.pairs("train"), more.pairs("train"), strict=False):
        np.testing.assert_array_equal(few.read_image(a.image), more.read_image(b.image))


def _open(cache: Path, start: float) -> int:
    time.sleep(max(0.0, start - time.time()))
    return len(Scenes(None, cache=cache, train=4, val=2, size=(48, 96)).pairs("train"))


@pytest.mark.slow
def test_processes_that_start_together_share_one_complete_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        assert pool.starmap(_open, [(tmp_path, time.time() + 0.3)] * 4) == [4] * 4
    assert len(list(tmp_path.iterdir())) == 1


def test_who_may_read_scenes_is_decided_by_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        _open(tmp_path, 0.0)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {0o700, 0o600}


def test_a_folder_made_with_other_options_is_refused(tmp_path: Path) -> None:
    write_scenes(tmp_path / "root", train=3, val=2, seed=5, size=(48, 96))
    config = DataConfig(name="scenes", options=SMALL)
    assert len(open_dataset(config, tmp_path / "root", tmp_path).pairs("train")) == 3
    with pytest.raises(UserError, match="but the options ask for"):
        open_dataset(DataConfig(name="scenes", options=SMALL | {"seed": 6}), tmp_path / "root", tmp_path)
    (tmp_path / "root" / "scenes.json").unlink()
    with pytest.raises(UserError, match="read a folder of this layout as the data set 'cityscapes'"):
        open_dataset(config, tmp_path / "root", tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, "train must be a whole number of at least 1 but got 0"),
        ({"val": 1.5}, "val must be a whole number"),
        ({"train": True}, "train must be a whole number"),
        ({"seed": -1}, "seed must be"),
        ({"size": [16, 64]}, "at least 32 pixels"),
        ({"size": 96}, "size must be"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_dataset(DataConfig(options=options), None, tmp_path)
    assert not list(tmp_path.iterdir())
