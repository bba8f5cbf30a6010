"""`data init` and `data show`: from a user's tree to a section that runs, and a page to look at."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.config import UserError, parse, read_yaml
from trainer.data import facts_of, open_dataset
from trainer.data.scenes import Scenes

Command = Callable[..., Any]
COLOURS = np.array([[0, 0, 0], [128, 64, 128], [0, 0, 142], [70, 70, 70]], np.uint8)


def picture(path: Path, seed: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (40, 72, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


def label(path: Path, values: tuple[int, ...] = (0, 1, 2, 255), colours: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.array(values, np.uint8).repeat(72 // len(values))
    rows = np.broadcast_to(columns, (40, len(columns)))
    Image.fromarray(COLOURS[rows] if colours else rows.copy()).resize((72, 40), 0).save(path)


def by_split(root: Path, picture_at: str, label_at: str, **more: Any) -> None:
    """Three pairs in train, two in val."""
    for seed, (split, stem) in enumerate((("train", "a"), ("train", "b"), ("train", "c"), ("val", "d"), ("val", "e"))):
        picture(root / picture_at.format(split=split, stem=stem), seed)
        label(root / label_at.format(split=split, stem=stem), **more)


TREES = [
    ("images/{split}/{stem}.jpg", "labels/{split}/{stem}.png", "images/train", "labels/train"),
    ("{split}/img/{stem}.png", "{split}/mask/{stem}_mask.png", "train/img", "train/mask/**/*_mask.*"),
    ("{split}/{stem}.jpg", "{split}/{stem}.png", "train/**/*.jpg", "train/**/*.png"),
    ("{split}/{stem}.png", "{split}/{stem}_L.png", "train/**/*.png", "train/**/*_L.png"),
    ("{split}/{stem}.png", "{split}_labels/{stem}_L.png", "train", "train_labels/**/*_L.*"),
    ("{split}/{stem}.png", "{split}annot/{stem}.png", "train", "trainannot"),
    ("Images_{split}/{stem}.jpg", "Masks_{split}/{stem}.png", "Images_train", "Masks_train"),
    ("x/{split}/town/{stem}_rgb.png", "y/{split}/town/{stem}_gt.png", "x/train/**/*_rgb.*", "y/train/**/*_gt.*"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("images", "labels", "found_images", "found_masks"), TREES)
def test_layouts_are_found(
    images: str, labels: str, found_images: str, found_masks: str, data_command: Command, tmp_path: Path
) -> None:
    by_split(tmp_path / "mine", images, labels)
    out = tmp_path / "data.yaml"
    code, said, err = data_command("init", tmp_path / "mine", "--out", out)
    assert (code, err) == (0, "")
    assert f"train: 3 pairs, {found_images} with {found_masks}" in said
    assert "255   25.00%  likely ignored" in said
    assert f"wrote {out}: name the classes in it" in said
    config = parse(read_yaml(out)).data
    assert config.options["classes"] == ["class 0", "class 1", "class 2"]
    assert config.options["ignore"] == [255]
    assert (config.size, config.normalize) == ((32, 64), "imagenet")
    dataset = open_dataset(config, tmp_path / "mine", tmp_path / "cache")
    assert [len(dataset.pairs(split)) for split in dataset.splits] == [3, 2]
    again, said, _ = data_command("check", out, tmp_path / "mine")
    assert again == 0 and "no problems" in said


@pytest.mark.parametrize(("images", "labels", "found_images", "found_masks"), TREES[:3])
def test_linked_folders_are_looked_into_and_no_file_is_taken_twice(
    images: str, labels: str, found_images: str, found_masks: str, data_command: Command, tmp_path: Path
) -> None:
    by_split(tmp_path / "elsewhere", images, labels)
    mine = tmp_path / "mine"
    mine.mkdir()
    for folder in sorted((tmp_path / "elsewhere").iterdir()):
        (folder / "up").symlink_to(tmp_path)
        (mine / folder.name).symlink_to(folder)
    (mine / "again").symlink_to(mine)
    out = tmp_path / "data.yaml"
    code, said, err = data_command("init", mine, "--out", out)
    assert (code, err) == (0, "")
    assert f"train: 3 pairs, {found_images} with {found_masks}" in said
    dataset = open_dataset(parse(read_yaml(out)).data, mine, tmp_path)
    assert [len(dataset.pairs(split)) for split in ("train", "val")] == [3, 2]


def test_colours_are_found(data_command: Command, tmp_path: Path) -> None:
    by_split(tmp_path, "images/{split}/{stem}.jpg", "masks/{split}/{stem}.png", colours=True, values=(0, 1, 2, 3))
    code, said, _ = data_command("init", tmp_path, "--out", tmp_path / "data.yaml")
    assert code == 0
    assert "masks hold 4 colours" in said
    assert "[0, 0, 0]   25.00%  likely ignored" in said
    options = read_yaml(tmp_path / "data.yaml")["data"]["options"]
    assert options["classes"] == {"class 0": [0, 0, 142], "class 1": [70, 70, 70], "class 2": [128, 64, 128]}
    assert options["ignore"] == [[0, 0, 0]]


def test_65535_is_likely_ignored_in_masks_of_16_bits(data_command: Command, tmp_path: Path) -> None:
    by_split(tmp_path / "mine", "images/{split}/{stem}.jpg", "masks/{split}/{stem}.png")
    for path in (tmp_path / "mine" / "masks").rglob("*.png"):
        columns = np.array([7, 255, 26000, 65535], np.uint16).repeat(18)
        Image.fromarray(np.broadcast_to(columns, (40, 72)).copy()).save(path)
    code, said, _ = data_command("init", tmp_path / "mine", "--out", tmp_path / "data.yaml")
    assert code == 0 and "65535   25.00%  likely ignored" in said
    options = read_yaml(tmp_path / "data.yaml")["data"]["options"]
    assert options["classes"] == {"7": "class 0", "255": "class 1", "26000": "class 2"}
    assert options["ignore"] == [65535]


@pytest.mark.parametrize(("last", "is_told"), [(3, True), (255, False)])
def test_where_no_value_is_likely_ignored_the_file_says_how_to_ignore_one(
    last: int, is_told: bool, data_command: Command, tmp_path: Path
) -> None:
    by_split(tmp_path, "images/{split}/{stem}.jpg", "masks/{split}/{stem}.png", values=(0, 1, 2, last))
    code, _, _ = data_command("init", tmp_path, "--out", tmp_path / "data.yaml")
    assert code == 0
    assert ("add ignore: [VALUE]" in (tmp_path / "data.yaml").read_text()) == is_told


@pytest.mark.slow
def test_frames_of_videos_are_held_out_together(data_command: Command, tmp_path: Path) -> None:
    for at in range(12):
        picture(tmp_path / "frames" / f"clip{at % 4}_{at:04d}.png", at)
        label(tmp_path / "annotations" / f"clip{at % 4}_{at:04d}.png")
    code, _, _ = data_command("init", tmp_path, "--out", tmp_path / "data.yaml")
    assert code == 0
    options = read_yaml(tmp_path / "data.yaml")["data"]["options"]
    assert options["holdout"] == {"val": 0.2}
    dataset = open_dataset(parse(read_yaml(tmp_path / "data.yaml")).data, tmp_path, tmp_path / "cache")
    clips = [{pair.stem[:5] for pair in dataset.pairs(split)} for split in dataset.splits]
    assert not clips[0] & clips[1] and len(clips[0] | clips[1]) == 4


def test_without_val_a_part_of_train_is_held_out(data_command: Command, tmp_path: Path) -> None:
    by_split(tmp_path, "images/{split}/{stem}.jpg", "masks/{split}/{stem}.png")
    for kind in ("images", "masks"):
        (tmp_path / kind / "val").rename(tmp_path / kind / "test")
    code, said, _ = data_command("init", tmp_path, "--out", tmp_path / "data.yaml")
    assert code == 0
    assert "no split val: 20% are held out as val; test is left out\n" in said
    options = read_yaml(tmp_path / "data.yaml")["data"]["options"]
    assert (options["images"], options["holdout"]) == ("images/train", {"val": 0.2})


def test_other_channels_are_measured_on_train_alone(data_command: Command, tmp_path: Path) -> None:
    for seed in range(4):
        split = "train" if seed < 3 else "val"
        values = np.full((40, 72, 5), 40 * seed + np.arange(5) * 10, np.uint8)
        values[:20] += 20
        (tmp_path / "images" / split).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "images" / split / f"{seed}.npy", values)
        label(tmp_path / "masks" / split / f"{seed}.png")
    code, said, _ = data_command("init", tmp_path, "--out", tmp_path / "data.yaml")
    assert code == 0
    section = read_yaml(tmp_path / "data.yaml")["data"]
    assert section["options"]["channels"] == 5
    of_train = np.stack([np.load(tmp_path / "images" / "train" / f"{seed}.npy") for seed in range(3)]) / 255
    np.testing.assert_allclose(section["normalize"]["mean"], of_train.mean((0, 1, 2)), atol=6e-5)
    np.testing.assert_allclose(section["normalize"]["std"], of_train.std((0, 1, 2)), atol=6e-5)
    assert f"normalize: {{mean: {section['normalize']['mean']}" in said


def test_a_picture_on_both_sides_is_said(data_command: Command, tmp_path: Path) -> None:
    by_split(tmp_path, "images/{split}/{stem}.png", "masks/{split}/{stem}.png")
    copied = tmp_path / "images" / "val" / "d.png"
    copied.write_bytes((tmp_path / "images" / "train" / "b.png").read_bytes())
    code, said, _ = data_command("init", tmp_path, "--out", tmp_path / "data.yaml")
    assert code == 1
    assert f"problem: {copied} is the same picture as {tmp_path}/images/train/b.png in train" in said


def test_lists_are_proposed_where_they_name_images(data_command: Command, tmp_path: Path) -> None:
    for seed in range(6):
        picture(tmp_path / "mine" / "images" / f"my picture {seed}.png", seed)
        label(tmp_path / "mine" / "masks" / f"my picture {seed}.png")
    for split, seeds in (("train", range(4)), ("val", (4, 5))):
        text = "".join(f"my picture {seed}.png\n" for seed in seeds)
        (tmp_path / "mine" / f"{split}.txt").write_text(text, encoding="utf-8")
    code, said, _ = data_command("init", tmp_path / "mine", "--out", tmp_path / "data.yaml")
    assert (code, "no problems" in said) == (0, True)
    assert read_yaml(tmp_path / "data.yaml")["data"]["options"]["lists"] == {"train": "train.txt", "val": "val.txt"}
    (tmp_path / "mine" / "val.txt").write_text("notes of mine\n", encoding="utf-8")
    assert data_command("init", tmp_path / "mine", "--out", tmp_path / "again.yaml")[0] == 0
    assert read_yaml(tmp_path / "again.yaml")["data"]["options"]["holdout"] == {"val": 0.2}


def test_patterns_may_be_given(data_command: Command, tmp_path: Path) -> None:
    by_split(tmp_path, "a/{stem}.png", "b/{stem}.png")
    arguments = (tmp_path, "--images", "a", "--masks", "b/*.png", "--out", tmp_path / "data.yaml")
    assert data_command("init", *arguments)[0] == 0
    options = read_yaml(tmp_path / "data.yaml")["data"]["options"]
    assert (options["images"], options["masks"], options["holdout"]) == ("a", "b/*.png", {"val": 0.2})


GIVEN = [
    (("a", "b"), "a/train", "b/train"),
    (("a/*/*.png", "b/**/*.png"), "a/train/*.png", "b/train/**/*.png"),
    (("train=a/train,val=a/val/*.png", "train=b/train/,val=b/*/*"), "a/train", "b/train/"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("given", "images", "masks"), GIVEN)
def test_given_patterns_keep_the_split_of_the_folders(
    given: tuple[str, str], images: str, masks: str, data_command: Command, tmp_path: Path
) -> None:
    by_split(tmp_path / "mine", "a/{split}/{stem}.png", "b/{split}/{stem}.png")
    options = [part for name, value in zip(("--images", "--masks"), given, strict=True)
               for one in value.replace("b/*/*", "b/val/*").split(",") for part in (name, one)]  # fmt: skip
    code, said, err = data_command("init", tmp_path / "mine", *options, "--out", tmp_path / "data.yaml")
    assert (code, err, "val: 2 pairs" in said) == (0, "", True)
    written = read_yaml(tmp_path / "data.yaml")["data"]["options"]
    assert (written["images"]["train"], written["masks"]["train"]) == (images, masks)
    assert "holdout" not in written


GREY = [
    ("{split}/images/{stem}.png", "{split}/masks/{stem}.png"),
    ("a/{split}/{stem}.png", "b/{split}/{stem}.png"),
    ("{split}/{stem}.png", "{split}/{stem}_L.png"),
    ("images/{split}/{stem}.png", "images/{split}/{stem}_mask.png"),
    ("images/{split}/{stem}.jpg", "images/{split}/{stem}.png"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("images", "labels"), GREY)
def test_grey_photographs_are_no_masks(images: str, labels: str, data_command: Command, tmp_path: Path) -> None:
    by_split(tmp_path / "mine", images, labels)
    for path in (tmp_path / "mine").rglob("*"):
        if path.is_file():
            with Image.open(path) as found:
                found.convert("L").save(path)
    code, said, _ = data_command("init", tmp_path / "mine", "--out", tmp_path / "data.yaml")
    assert code == 0
    assert "train: 3 pairs" in said and "val: 2 pairs" in said and "255   25.00%  likely ignored" in said


def test_names_of_folders_go_before_what_pictures_hold(data_command: Command, tmp_path: Path) -> None:
    """Drawings hold few colours in flat areas, as masks do."""
    by_split(tmp_path / "mine", "images/{split}/{stem}.png", "masks/{split}/{stem}.png")
    for path in (tmp_path / "mine" / "images").rglob("*.png"):
        label(path, colours=True, values=(0, 1, 2, 3))
        drawing = np.array(Image.open(path))
        drawing[0, 0] = ord(path.stem)
        Image.fromarray(drawing).save(path)
    code, said, _ = data_command("init", tmp_path / "mine", "--out", tmp_path / "data.yaml")
    assert code == 0 and "train: 3 pairs, images/train with masks/train" in said


def stored_with_loss(root: Path) -> None:
    for path in (root / "val" / "masks").iterdir():
        with Image.open(path) as mask:
            mask.save(path.with_suffix(".jpg"))
        path.unlink()


def without_masks(root: Path) -> None:
    shutil.rmtree(root / "val" / "masks")


LOST: list[tuple[Callable[[Path], None], str]] = [
    (stored_with_loss, "2 masks as val/masks: label {root}/val/masks/d.jpg "),
    (stored_with_loss, "2 images as val/images: no mask has their names"),
    (without_masks, "2 images as val/images: no mask has their names; correct these files, or say where images and"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spoil", "told"), LOST)
def test_a_split_that_cannot_be_used_is_a_problem(
    spoil: Callable[[Path], None], told: str, data_command: Command, tmp_path: Path
) -> None:
    root = tmp_path / "mine"
    by_split(root, "{split}/images/{stem}.png", "{split}/masks/{stem}.png")
    spoil(root)
    code, said, _ = data_command("init", root, "--out", tmp_path / "data.yaml")
    assert code == 1
    (problem,) = (line for line in said.splitlines() if line.startswith("problem: val is left out: "))
    assert told.format(root=root) in problem
    assert "val is left out: 20% are held out as val" in said and "no problems" not in said


@pytest.mark.slow
def test_files_that_no_split_needs_are_told(data_command: Command, tmp_path: Path) -> None:
    by_split(tmp_path / "mine", "{split}/images/{stem}.png", "{split}/masks/{stem}.png")
    picture(tmp_path / "mine" / "test" / "images" / "x.png", 9)
    label(tmp_path / "mine" / "train" / "labels_coarse" / "a.png")
    code, said, _ = data_command("init", tmp_path / "mine", "--out", tmp_path / "data.yaml")
    assert code == 0 and "no problems" in said
    assert "left out: 1 image as test/images: no mask has their names\n" in said
    assert "left out: 1 mask as train/labels_coarse: train/masks has as many or more pairs\n" in said


BRACKETS = [
    ("{split}[v1]/images/{stem}.png", "{split}[v1]/masks/{stem}.png", "train[v1]/images", "train[v1]/masks"),
    ("{split}[v1]/{stem}.jpg", "{split}[v1]/{stem}.png", "train[[]v1]/**/*.jpg", "train[[]v1]/**/*.png"),
    ("{split} [a]*/{stem}.jpg", "{split}_gt [b]?/{stem}_[m].png", "train [a]*", "train_gt [[]b][?]/**/*_[[]m].*"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("images", "labels", "found_images", "found_masks"), BRACKETS)
def test_folders_may_have_brackets_in_their_names(
    images: str, labels: str, found_images: str, found_masks: str, data_command: Command, tmp_path: Path
) -> None:
    by_split(tmp_path / "mine", images, labels)
    code, said, err = data_command("init", tmp_path / "mine", "--out", tmp_path / "data.yaml")
    assert (code, err) == (0, "")
    assert f"train: 3 pairs, {found_images} with {found_masks}\n" in said and "no problems" in said
    dataset = open_dataset(parse(read_yaml(tmp_path / "data.yaml")).data, tmp_path / "mine", tmp_path / "cache")
    assert [pair.stem for pair in dataset.pairs("train")] == ["a", "b", "c"]


MISTAKES = [
    ((), "no images with masks below {root}: found 5 images as images; a mask has the name of its image"),
    ((), "; say where they are with --images and --masks"),
    (
        ("--images", "train=images", "--masks", "images"),
        "--images is given for train, but --masks for all; give both for the same splits",
    ),
    (
        ("--images", "images", "--images", "val=x", "--masks", "images"),
        "--images val=x: one pattern for all images, or one for each split, is expected, beside --images images",
    ),
    (("--images", "images"), "--images and --masks go together; give both, or neither"),
    (("--images", "images", "--masks", "masks"), "--masks: no folder {root}/masks"),
    (("--out", "{root}/note.yaml"), "--out {root}/note.yaml exists; name a new file"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    arguments: tuple[str, ...], message: str, data_command: Command, tmp_path: Path
) -> None:
    for seed in range(5):
        picture(tmp_path / "images" / f"{seed}.jpg", seed)
    (tmp_path / "note.yaml").write_text("mine\n", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    given = [part.format(root=tmp_path) for part in arguments]
    out = [] if "--out" in given else ["--out", tmp_path / "data.yaml"]
    code, _, err = data_command("init", tmp_path, *given, *out)
    assert code == 2
    assert message.format(root=tmp_path) in err and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_without_a_section_is_refused(data_command: Command, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("student: {}\n", encoding="utf-8")
    code, _, err = data_command("check", tmp_path / "x.yaml", tmp_path)
    told = f"{tmp_path}/x.yaml has no section `data:`; give a data set's name, or a file that `data init` writes"
    assert (code, err) == (2, f"error: {told}\n")


def test_the_page_shows_samples_classes_and_sizes(data_command: Command, tmp_path: Path) -> None:
    by_split(tmp_path / "mine", "images/{split}/{stem}.jpg", "labels/{split}/{stem}.png")
    file, out = tmp_path / "new" / "data.yaml", tmp_path / "newer" / "one" / "page.html"
    data_command("init", tmp_path / "mine", "--out", file)
    code, said, _ = data_command("show", file, tmp_path / "mine", "--out", out)
    assert code == 0 and f"wrote {out}: 5 samples" in said
    page = out.read_text(encoding="utf-8")
    assert page.count("<figure>") == 5 and page.count("data:image/png;base64,") == 10
    assert page.count("33.33%") == 6, "three classes in two splits"
    assert page.count("25.00%") == 2, "ignored"
    assert "72x40 (3)" in page and "72x40 (2)" in page
    assert "http" not in page.replace("<!doctype html>", ""), "nothing is fetched"
    assert data_command("show", "camvid", tmp_path / "mine", "--out", file)[0] == 2


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        *((name, {"whole": 3}, "whole must be true or false but got 3") for name in ("camvid", "cityscapes", "acdc")),
        ("voc2012", {"aug": "yes"}, "aug must be true or false but got 'yes'"),
        ("voc2012", {"whole": 1}, "whole must be true or false but got 1"),
        ("scenes", {"train": -5}, "train must be a whole number of at least 1 but got -5"),
        ("scenes", {"size": [64]}, r"size must be \[height, width\]"),
    ],
)
def test_a_wrong_value_of_an_option_is_told_without_a_folder(name: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        facts_of(parse({"data": {"name": name, "size": [64, 128], "options": options}}).data)


def test_an_option_that_is_null_has_its_default(tmp_path: Path) -> None:
    given = parse({"data": {"name": "scenes", "size": [64, 128], "options": {"train": None}}}).data
    assert facts_of(given).classes == Scenes.classes
    assert not Scenes.is_here(None, tmp_path, train=None)
    assert Scenes.expected_splits(train=None).train == 240
