"""The data set `folder`: formats of images, and images of any number of channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.data.own_folder import CLASSES, FOLDERS, image, opened
from trainer.config import DataConfig, UserError
from trainer.data import open_dataset, pack


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".bmp", ".webp", ".npy"])
def test_formats_of_images(ending: str, tree: Path) -> None:
    for path in list((tree / "images").rglob("*.png")):
        image(path.with_suffix(ending), 3)
        if ending != ".png":
            path.unlink()
    dataset = opened(tree, **FOLDERS)
    picture, _ = dataset.read(dataset.pairs("train")[0])
    assert (picture.shape, picture.dtype) == ((40, 48, 3), np.uint8)
    expected = np.random.default_rng(3).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    if ending != ".jpg":
        np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (2, "uint16"), (5, "float32")])
def test_any_number_of_channels(channels: int, dtype: str, tree: Path, tmp_path: Path) -> None:
    for at, path in enumerate(list((tree / "images").rglob("*.png"))):
        values = np.random.default_rng(at).integers(0, 256, (40, 48, channels), dtype=np.uint8)
        stored = {"uint8": values, "uint16": values.astype(np.uint16) * 256, "float32": values / np.float32(255)}[dtype]
        np.save(path.with_suffix(".npy"), stored[..., 0] if channels == 1 else stored)
        path.unlink()
    more: dict[str, Any] = {"range": [0, 1]} if dtype == "float32" else {}
    config = DataConfig(
        name="folder",
        size=(40, 48),
        normalize="unit",
        options={"classes": CLASSES, **FOLDERS, "channels": channels, **more},
    )
    packed = pack(open_dataset(config, tree, tmp_path / "cache"), config, "val", tmp_path / "cache")
    read = packed.images([0])[0]
    assert read.shape == (40, 48, channels)
    first = next((tree / "images" / "val").glob("e.npy"))
    stored = np.load(first).reshape(40, 48, channels)
    expected = {"uint8": lambda: stored, "uint16": lambda: stored >> 8, "float32": lambda: np.rint(stored * 255)}
    np.testing.assert_array_equal(read, expected[dtype]())


@pytest.mark.parametrize(
    ("stored", "options", "message"),
    [
        (
            np.zeros((40, 48), np.float32),
            {"channels": 1},
            "whose darkest and brightest value are not known; set data.opt",
        ),
        (np.zeros((40, 48, 4), np.uint8), {"channels": 5}, "of shape (40, 48, 4) but must hold (H, W) of 5 channels"),
        (np.full((40, 48), np.nan, np.float32), {"channels": 1, "range": [0, 1]}, "holds numbers that are not finite"),
        (np.array([{}], object), {"channels": 1}, "as an array (Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_are_no_images(stored: np.ndarray, options: dict[str, Any], message: str, tree: Path) -> None:
    path = tree / "images" / "train" / "a.png"
    path.unlink()
    np.save(path.with_suffix(".npy"), stored)
    dataset = open_dataset(
        DataConfig(name="folder", normalize="unit", options={"classes": CLASSES, **FOLDERS, **options}), tree, tree
    )
    with pytest.raises(UserError) as refused:
        dataset.read_image(path.with_suffix(".npy"))
    assert message in str(refused.value)
