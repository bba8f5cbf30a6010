"""The data set `folder`: formats of masks, and the classes that their values and colours mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.data.own_folder import COLOURS, FOLDERS, mask, opened, section
from trainer.config import IGNORE, UserError
from trainer.data import Facts, check_root, facts_of


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".npy"])
def test_formats_of_masks(ending: str, tree: Path) -> None:
    path = tree / "masks" / "train" / "a.png"
    path.unlink()
    mask(path.with_suffix(ending))
    dataset = opened(tree, **FOLDERS)
    label = dataset.read_label(dataset.pairs("train")[0].label)
    np.testing.assert_array_equal(label, np.broadcast_to(np.arange(48) // 16, (40, 48)))


def test_values_get_names_and_several_make_one_class(tree: Path) -> None:
    values = np.broadcast_to(np.array([0, 700, 30000, 65535], np.uint16).repeat(12), (40, 48)).copy()
    mask(tree / "masks" / "train" / "a.png", values)
    classes = {"30000": "car", "700": "car", "0": "ground"}
    dataset = opened(tree, **FOLDERS, classes=classes, ignore=65535)
    assert dataset.classes == ("ground", "car"), "in the order of the lowest value, however it is written"
    label = dataset.read_label(dataset.pairs("train")[0].label)
    np.testing.assert_array_equal(label[0, ::12], [0, 1, 1, IGNORE])


def test_255_may_be_a_class(tree: Path) -> None:
    mask(tree / "masks" / "train" / "a.png", np.array([[0, 255]], np.uint8).repeat(24, 1).repeat(40, 0))
    dataset = opened(tree, **FOLDERS, classes={"0": "background", "255": "thing"})
    assert set(dataset.read_label(dataset.pairs("train")[0].label).ravel()) == {0, 1}


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".webp"])
def test_colours_get_names(ending: str, tree: Path) -> None:
    shown = [[10, 20, 30], [0, 0, 255], [0, 0, 254], [128, 64, 128], [0, 0, 0], [10, 20, 30]]
    path = tree / "masks" / "train" / "a.png"
    path.unlink()
    mask(path.with_suffix(ending), np.array(shown, np.uint8).repeat(8, 0)[None].repeat(40, 0))
    dataset = opened(tree, **FOLDERS, classes=COLOURS, ignore=[[0, 0, 0]])
    assert dataset.classes == ("car", "ground", "road"), (
        "the order of names, as a run's key does not tell that of a file"
    )
    assert dataset.palette == ((0, 0, 255), (10, 20, 30), (128, 64, 128))
    label = dataset.read_label(dataset.pairs("train")[0].label)
    np.testing.assert_array_equal(label[0, ::8], [1, 0, 0, 2, IGNORE, 1])


def test_what_is_ignored_may_be_written_twice(tree: Path) -> None:
    twice = opened(tree, **FOLDERS, classes=COLOURS, ignore=[[0, 0, 0], [1, 1, 1], [0, 0, 0]])
    black = mask(tree / "masks" / "train" / "a.png", np.zeros((40, 48, 3), np.uint8))
    assert set(twice.read_label(black).ravel()) == {IGNORE}
    assert (opened(tree, **FOLDERS, ignore=[7, "07"]).table(black)[7]) == IGNORE


def test_facts_need_no_folder() -> None:
    facts = facts_of(section(holdout={"val": 0.1, "test": 0.1}, channels=2, classes=COLOURS))
    assert isinstance(facts, Facts)
    assert (facts.classes, facts.channels, facts.splits) == (("car", "ground", "road"), 2, ("train", "val", "test"))


def test_a_colour_that_no_class_has_is_named_with_file_and_count(tree: Path) -> None:
    for path in (tree / "masks").rglob("*.png"):
        mask(path, np.full((40, 48, 3), (10, 20, 30), np.uint8))
    strange = np.full((40, 48, 3), (10, 20, 30), np.uint8)
    strange[2, 3:5] = [[1, 2, 3], [3, 2, 1]]
    path = mask(tree / "masks" / "train" / "a.png", strange)
    config = section(**FOLDERS, classes=COLOURS)
    with pytest.raises(UserError) as refused:  # a glance before anything runs finds it
        check_root(config, tree, tree.parent / "cache")
    assert str(refused.value) == (
        f"label {path} holds the colour [1, 2, 3] at row 2, column 3 (2 pixels of 2 such colours), which no class has; "
        "add it to data.options.classes or data.options.ignore, or correct the file"
    )
    assert not (tree.parent / "cache").exists()


def test_masks_with_loss_are_no_masks(tree: Path) -> None:
    for path in (tree / "masks").rglob("*.png"):
        with Image.open(path) as file:
            file.convert("RGB").save(path.with_suffix(".jpg"))
        path.unlink()
    with pytest.raises(UserError, match=r"colour mode RGB \(JPEG\) but must hold colours of 8 bits without loss"):
        check_root(section(**FOLDERS, classes=COLOURS), tree, tree.parent / "cache")


def saved_with_loss(tree: Path) -> None:
    for path in (tree / "masks").rglob("*.png"):
        with Image.open(path) as file:
            file.save(path.with_suffix(".jpg"))
        path.unlink()


def coloured(tree: Path) -> None:
    mask(tree / "masks" / "train" / "a.png", np.zeros((40, 48, 3), np.uint8))


def with_a_stranger(tree: Path) -> None:
    mask(tree / "masks" / "train" / "a.png", np.full((40, 48), 7, np.uint8))


MISREAD: list[tuple[Callable[[Path], None], str]] = [
    (saved_with_loss, "is stored as JPEG, which does not keep class indices; export it again from its source, as PNG"),
    (coloured, "give the index image, or name the colours, data.options.classes: {NAME: [R, G, B]}"),
    (with_a_stranger, "add it to data.options.classes or data.options.ignore, or correct the file"),
]


@pytest.mark.parametrize(("spoil", "remedy"), MISREAD)
def test_a_mask_that_is_misread_is_told_with_its_remedy(spoil: Callable[[Path], None], remedy: str, tree: Path) -> None:
    spoil(tree)
    with pytest.raises(UserError) as refused:
        check_root(section(**FOLDERS), tree, tree.parent / "cache")
    assert remedy in str(refused.value) and f"label {tree}/masks/train/a." in str(refused.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((40, 48, 2), np.uint8), "but must hold whole numbers of shape (H, W)"),
        (np.zeros((40, 48), np.float32), "holds float32 of shape (40, 48) but must hold whole numbers"),
        (np.full((40, 48), -1, np.int32), "holds values from -1 to -1 but may hold 0 to 65535"),
    ],
)
def test_arrays_that_are_no_masks(values: np.ndarray, message: str, tree: Path) -> None:
    path = tree / "masks" / "train" / "a.npy"
    np.save(path, values)
    with pytest.raises(UserError) as refused:
        opened(tree, **FOLDERS).read_label(path)
    assert message in str(refused.value)
