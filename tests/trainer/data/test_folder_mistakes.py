"""The data set `folder`: wrong options and folders that do not fit them, told before anything is read or written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.data.own_folder import COLOURS, FOLDERS, section
from trainer.config import DataConfig, UserError
from trainer.data import check_data, check_root

HELD = {"holdout": {"val": 0.25}}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "one folder of images needs either lists: {train: FILE, val: FILE} or holdout: {val: SHARE}"),
    ({"images": {"train": "a"}, "masks": {"train": "b"}}, "images has no val; runs need both"),
    ({"images": "a", "masks": FOLDERS["masks"]}, "images and masks must both be one folder, or both name one"),
    ({**FOLDERS, **HELD}, "images are given for each split, so that lists and holdout have no place; remove them"),
    ({"holdout": {"vall": 0.2}}, "data.options: holdout: unknown key 'vall'; did you mean 'val'?"),
    ({"lists": {"train": "a", "dev": "b"}}, "data.options: lists: unknown key 'dev'; known: train, val, test"),
    (
        {"images": {"trian": "a", "val": "b"}, "masks": FOLDERS["masks"]},
        "data.options: images: unknown key 'trian'; did you mean 'train'?",
    ),
    (
        {"images": 3, **HELD},
        "data.options: images: Input should be a valid string, or keys and values are expected, for example {}, but",
    ),
    ({"holdout": {"test": 0.5}}, "holdout needs a share for val"),
    ({"holdout": {"val": 1.5}}, "data.options: holdout.val: Input should be less than 1, but got 1.5"),
    ({**HELD, "group": "("}, r"data.options.group: '(' is no regular expression (missing ), unterminated subpattern"),
    ({**HELD, "classes": ["a", "b", "a"]}, "data.options.classes: 'a' is the name of 0 and 2; rename one"),
    ({**HELD, "classes": ["a"]}, "data.options.classes: 2 to 254 classes are possible, but got 1"),
    ({**HELD, "classes": 3}, "a list of names, values with names, or names with [R, G, B] are expected, but got 3"),
    ({**HELD, "classes": {"x": "a", "1": "b"}}, "a value of a mask is a whole number from 0 to 65535, but got 'x'"),
    ({**HELD, "classes": {"0": "a", "1": ""}}, "a name is one line of text without '/', but got ''; write another"),
    ({**HELD, "classes": ["a/b", "c"]}, "a name is one line of text without '/', but got 'a/b'; write another"),
    ({**HELD, "classes": ["a", 1]}, "data.options.classes: a name is text, but got 1; put it in quotes"),
    (
        {**HELD, "classes": {"0": "a", "1": "b", "01": "c"}},
        "data.options.classes: '1' and '01' are the same value, named 'b' and 'c'; keep one of them",
    ),
    (
        {**HELD, "classes": {"a": [[1, 2, 3], [1, 2, 3]], "b": [0, 0, 0]}},
        "data.options.classes.a: [1, 2, 3] is written twice; remove one of them",
    ),
    ({**HELD, "classes": {"a": [1, 2, 3], "b": [1, 2, 3]}}, "[1, 2, 3] is the colour of 'a' and 'b'; give each class"),
    ({**HELD, "classes": {"a": [1, 2, 3], "b": [1, 2, 300]}}, "[R, G, B], but got [1, 2, 300]"),
    ({**HELD, "ignore": [1]}, "data.options.ignore: 1 is class 'road'; ignore it or name it, not both"),
    ({**HELD, "ignore": [[1, 2, 3]]}, "data.options.ignore: a value of a mask is a whole number"),
    ({**HELD, "range": [1, 0]}, "range is [LOW, HIGH], but got [1, 0]"),
    (
        {**HELD, "channels": 4},
        "data.normalize is of 3 channels but images of folder have 4; set it to what `transkd data",
    ),
    ({**HELD, "clases": 1}, "data.options: unknown option 'clases'; did you mean 'classes'?"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_a_wrong_option_is_told_before_a_folder_is_looked_at(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        check_data(section(**options))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value) and "data.options: data.options" not in str(refused.value)


def test_classes_must_be_named() -> None:
    with pytest.raises(UserError, match="the option 'classes' has no default; give it under options"):
        check_data(DataConfig(name="folder"))


IN_FOLDER: list[tuple[dict[str, Any], str]] = [
    (
        {"images": {**FOLDERS["images"], "val": "photos"}, "masks": FOLDERS["masks"]},
        "images.val: no folder {root}/photos",
    ),
    (
        {"images": {**FOLDERS["images"], "val": "images/val/*.jpg"}, "masks": FOLDERS["masks"]},
        "data.options.images.val: no file below {root} matches 'images/val/*.jpg'",
    ),
    ({"images": "../x", "masks": "masks", **HELD}, "data.options.images: a folder or glob must be below the data root"),
    (
        {**HELD, "group": "^q"},
        "data.options.group: '^q' matches no stem; not, for example, 'train/a'; every image needs",
    ),
    ({**HELD, "group": "train/(.)"}, "matches 4 of 6 stems; not, for example, 'val/e'"),
    ({**HELD, "group": "()"}, "6 images are in 1 group (''), which cannot be divided into train and val"),
    ({**FOLDERS, "group": "()"}, "group on both sides, in train and val, so that val would measure what was learnt by"),
    (
        {"images": "images", "masks": "images", "lists": {"train": "t.txt", "val": "v.txt"}},
        "no such file: {root}/t.txt",
    ),
]


@pytest.mark.parametrize(("options", "message"), IN_FOLDER, ids=[message[:40] for _, message in IN_FOLDER])
def test_a_mistake_in_the_folder_is_told_in_the_first_second(options: dict[str, Any], message: str, tree: Path) -> None:
    with pytest.raises(UserError) as refused:
        check_root(section(**options), tree, tree.parent / "cache")
    assert message.format(root=tree) in str(refused.value)
    assert not (tree.parent / "cache").exists()


def test_files_without_a_partner_are_named(tree: Path) -> None:
    (tree / "masks" / "train" / "b.png").unlink()
    with pytest.raises(UserError, match=rf"image without its label: {tree}/images/train/b.png; add the label"):
        check_root(section(**FOLDERS), tree, tree.parent / "cache")


@pytest.mark.parametrize("classes", [COLOURS, {"0": "a", "700": "b"}], ids=["colours", "16 bits"])
def test_what_make_cannot_write_is_refused_before_it_writes(
    classes: Any, tmp_path: Path, data_command: Callable[..., Any]
) -> None:
    options = {**FOLDERS, "classes": classes}
    given = [part for key, value in options.items() for part in ("--option", f"{key}={json.dumps(value)}")]
    code, _, err = data_command("make", "folder", tmp_path / "made", *given)
    assert code == 2 and "only RGB images with masks of values from 0 to 255 can be made" in err
    assert not (tmp_path / "made").exists()
