"""The data set `folder`: every way to say where images and masks are, by folders, globs and lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.data.own_folder import FOLDERS, VIDEOS, image, mask, opened, section, stems
from trainer.config import UserError
from trainer.data import pack


@pytest.mark.parametrize(
    ("images", "masks", "stem"),
    [
        ("images/train", "masks/train", "a"),
        ("images/train/*.png", "masks/train", "a"),
        ("images/*/*.png", "masks/*/*.png", "train/a"),
        ("images/**/*.*", "masks/**/*.png", "train/a"),
        ("images/tr[a-z]in/?.png", "masks/tr[a-z]in/?.png", "a/a"),
    ],
)
def test_a_stem_is_what_the_wildcards_stand_for(images: str, masks: str, stem: str, tree: Path) -> None:
    options = {"images": {"train": images, "val": "images/val"}, "masks": {"train": masks, "val": "masks/val"}}
    assert stems(tree, "train", **options)[0] == stem


def test_a_literal_wildcard_of_a_glob_belongs_to_no_stem(tree: Path) -> None:
    (tree / "images" / "train").rename(tree / "images" / "train[1]*")
    for images in ("images/train[1]*", "images/train[[]1][*]", "images/train[[]1][*]/*.png"):
        options = {"images": {"train": images, "val": "images/val"}, "masks": FOLDERS["masks"]}
        assert stems(tree, "train", **options) == ["a", "b", "c", "d"]
        picture, _ = opened(tree, **options).paths("train", 0)
        assert picture == "images/train[1]*/made_00000.png" or images == "images/train[1]*"


def test_masks_beside_images_are_no_images(flat: Path) -> None:
    found = opened(flat, **VIDEOS, holdout={"val": 0.25}).pairs("train")
    assert all(p.label == p.image.with_name(f"{p.stem}_mask.png") for p in found)


def test_the_same_files_are_the_same_data_however_they_are_named(tree: Path, tmp_path: Path) -> None:
    """The fingerprint is of stems and bytes: options that find the same pairs give the same."""
    globs = {
        "images": {split: f"images/{split}/*.png" for split in ("train", "val")},
        "masks": {split: f"masks/{split}/*.png" for split in ("train", "val")},
    }
    prints = {pack(opened(tree, **o), section(**o), "train", tmp_path / "cache").fingerprint for o in (FOLDERS, globs)}
    assert len(prints) == 1


def test_lists_divide_one_folder(flat: Path) -> None:
    (flat / "train.txt").write_text("video0_000\nvideo1_001.png\nsome/where/video2_002.png\n", encoding="utf-8")
    (flat / "val.txt").write_text("video3_003\n", encoding="utf-8")
    lists = {"lists": {"train": "train.txt", "val": "val.txt"}}
    assert stems(flat, "train", **VIDEOS, **lists) == ["video0_000", "video1_001", "video2_002"]
    assert stems(flat, "val", **VIDEOS, **lists) == ["video3_003"]
    (flat / "val.txt").write_text("video3_003\nvideo0_000\nvideo9_999\n", encoding="utf-8")
    flaws = [line for flaw in opened(flat, **VIDEOS, **lists).find("val").flaws() for line in flaw.lines()]
    assert any("but without image and label: video9_999" in line for line in flaws)
    assert any("video0_000; take it out of the list of train" in line for line in flaws)


LINES = [
    ("my picture 1", ["my picture 1"]),
    ("my picture 1.png", ["my picture 1"]),
    ("images/my picture 1.png", ["my picture 1"]),
    ("some frames/other.jpg", ["other"]),
    ("some frames\\other.jpg", ["other"]),
    ("images/my picture 1.png masks/my picture 1.png", ["my picture 1"]),
    ("/other.png my picture 1.png", ["other"]),
    ("other 1", ["other"]),
    ("my picture 1\nmy", ["my", "my picture 1"]),
    ("/\na picture 2\nother.png", None),
    ("gone.png other.png", None),
]


@pytest.mark.parametrize(("text", "expected"), LINES)
def test_a_line_of_a_list_may_hold_blanks_or_begin_with_a_name(
    text: str, expected: list[str] | None, tmp_path: Path
) -> None:
    for stem in ("my", "my picture 1", "other", "seen"):
        image(tmp_path / "images" / f"{stem}.png")
        mask(tmp_path / "masks" / f"{stem}.png")
    (tmp_path / "train.txt").write_text(f"{text}\n", encoding="utf-8")
    (tmp_path / "val.txt").write_text("seen\n", encoding="utf-8")
    lists = {"train": "train.txt", "val": "val.txt"}
    if expected is not None:
        assert stems(tmp_path, "train", lists=lists) == expected
        return
    with pytest.raises(
        UserError, match=f"listed in {tmp_path}/train.txt but without image and label: (/, a picture 2|gone)"
    ):
        stems(tmp_path, "train", lists=lists)
