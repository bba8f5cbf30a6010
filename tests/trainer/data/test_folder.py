"""A user's own folder: every way to say where images and masks are, how they are split, and what masks mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.config import IGNORE, DataConfig, UserError
from trainer.data import Facts, SegDataset, check_data, check_root, facts_of, open_dataset, pack, pack_splits

CLASSES = ["ground", "road", "car"]
FOLDERS = {
    "images": {"train": "images/train", "val": "images/val"},
    "masks": {"train": "masks/train", "val": "masks/val"},
}


def section(**options: Any) -> DataConfig:
    return DataConfig(name="folder", size=(32, 64), options={"classes": CLASSES, **options})


def image(path: Path, seed: int = 0, size: tuple[int, int] = (40, 48)) -> Path:
    """(H, W) random RGB, in the format of the ending; `.npy` too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.save(path, pixels) if path.suffix == ".npy" else Image.fromarray(pixels).save(path, lossless=True)
    return path


def mask(path: Path, values: Any = None, size: tuple[int, int] = (40, 48)) -> Path:
    """(H, W) of 0, 1, 2 from left to right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = np.broadcast_to(np.arange(size[1]) * 3 // size[1], size).astype(np.uint8)
    np.save(path, values) if path.suffix == ".npy" else Image.fromarray(values).save(path, lossless=True)
    return path


def pair(root: Path, kind: str, stem: str, seed: int) -> None:
    image(root / "images" / kind / f"{stem}.png", seed)
    mask(root / "masks" / kind / f"{stem}.png")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four pairs in train, two in val."""
    for seed, stem in enumerate(("a", "b", "c", "d")):
        pair(tmp_path / "data", "train", stem, seed)
    for seed, stem in enumerate(("e", "f")):
        pair(tmp_path / "data", "val", stem, 10 + seed)
    return tmp_path / "data"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Twelve frames of four videos in one folder, the masks beside them."""
    for at in range(12):
        name = f"video{at % 4}_{at:03d}"
        image(tmp_path / "flat" / f"{name}.png", at)
        mask(tmp_path / "flat" / f"{name}_mask.png")
    return tmp_path / "flat"


VIDEOS = {"images": "*.png", "masks": "*_mask.png"}


def opened(root: Path, **options: Any) -> SegDataset:
    return open_dataset(section(**options), root, root.parent / "cache")


def stems(root: Path, split: Any, **options: Any) -> list[str]:
    return [found.stem for found in opened(root, **options).pairs(split)]


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


def test_a_share_is_held_out_by_group_and_depends_on_names_only(flat: Path) -> None:
    options = {**VIDEOS, "holdout": {"val": 0.25, "test": 0.25}, "group": "^(video.)"}
    found = {split: stems(flat, split, **options) for split in ("train", "val", "test")}
    assert [len(found[split]) for split in ("train", "val", "test")] == [6, 3, 3]
    videos = {split: {stem[:6] for stem in names} for split, names in found.items()}
    assert len(set.union(*videos.values())) == sum(map(len, videos.values())) == 4, "no video stands on both sides"
    for path in flat.glob("video0_*"):  # other images change, names do not
        path.write_bytes(next(flat.glob("video1_*_mask.png" if "mask" in path.name else "video1_001.png")).read_bytes())
    assert {split: stems(flat, split, **options) for split in found} == found
    dataset = opened(flat, **options)
    assert dataset.groups(["video2_002", "video1_001"]) == ["video2", "video1"]


def test_data_select_holds_out_whole_groups(flat: Path, tiny: Callable[..., Any], place: Callable[..., Any]) -> None:
    from trainer.training.build import open_data

    options = {"classes": CLASSES, **VIDEOS, "holdout": {"val": 0.25}, "group": "^(video.)"}
    data = {"name": "folder", "size": [32, 64], "options": options, "select": 0.3}
    found = open_data(tiny({}, {"data": data, "optim.global_batch": 2}), place(data_root=flat))
    sides = [{found.train.stems[i][:6] for i in side} for side in (found.learn, found.select)]
    assert len(sides[0]) == 2 and len(sides[1]) == 1 and not sides[0] & sides[1]


def test_a_run_says_which_pairs_stand_on_both_sides(
    tree: Path, tiny: Callable[..., Any], place: Callable[..., Any]
) -> None:
    from trainer.training.build import open_data

    data = {"name": "folder", "size": [32, 64], "options": {"classes": CLASSES, **FOLDERS}}
    config = tiny({}, {"data": data, "optim.global_batch": 2})
    said: list[str] = []
    open_data(config, place(data_root=tree), said.append)
    assert said == []
    for kind in ("images", "masks"):
        (tree / kind / "val" / "f.png").write_bytes((tree / kind / "train" / "b.png").read_bytes())
    open_data(config, place(data_root=tree), said.append)
    assert said == [
        "warning: 1 of 2 pictures of val are in train too, as f (b in train), so that val measures what was learnt by "
        "heart; `transkd data check` lists them"
    ]


def test_a_picture_on_both_sides_is_said_whatever_its_mask_and_file(
    tree: Path, tiny: Callable[..., Any], place: Callable[..., Any]
) -> None:
    from trainer.training.build import open_data

    data = {"name": "folder", "size": [32, 64], "options": {"classes": CLASSES, **FOLDERS}}
    config = tiny({}, {"data": data, "optim.global_batch": 2})
    for stem, of_train in (("e", "a"), ("f", "b")):  # saved again, by another program
        with Image.open(tree / "images" / "train" / f"{of_train}.png") as saved:
            saved.save(tree / "images" / "val" / f"{stem}.png", compress_level=1)
        mask(tree / "masks" / "val" / f"{stem}.png", np.ones((40, 48), np.uint8))
    for _ in range(2):  # packed now, and found packed
        said: list[str] = []
        open_data(config, place(data_root=tree), said.append)
        assert [line for line in said if line.startswith("warning: 2 of 2 pictures of val are in train too, as e (a")]


def by_link(tree: Path, make: Callable[[Path, Path], None]) -> dict[str, Any]:
    """The section of the tree, whose f.png in val is made a link to a.png in train."""
    path = tree / "images" / "val" / "f.png"
    path.unlink()
    make(path, tree / "images" / "train" / "a.png")
    return FOLDERS


SHARED: dict[str, Callable[[Path], dict[str, Any]]] = {
    "the same folder": lambda tree: {
        "images": {"train": "images/train", "val": "images/train"},
        "masks": {"train": "masks/train", "val": "masks/train"},
    },
    "globs that overlap": lambda tree: {
        "images": {"train": "images/*/*.png", "val": "images/val"},
        "masks": {"train": "masks/*/*.png", "val": "masks/val"},
    },
    "a symbolic link": lambda tree: by_link(tree, Path.symlink_to),
    "a hard link": lambda tree: by_link(tree, Path.hardlink_to),
}


@pytest.mark.parametrize("how", SHARED)
def test_a_file_in_two_splits_is_refused_before_it_is_read(
    how: str, tree: Path, data_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = SHARED[how](tree)
    file = tree / "data.yaml"
    file.write_text(json.dumps({"data": section(**options).model_dump(mode="json")}), encoding="utf-8")
    code, said, _ = data_command("check", file, tree)
    told = "image in both train and val, so that val would measure what was learnt by heart: "
    assert code == 1 and f"problem: {told}{tree}/images/" in said and "fingerprint none" in said
    assert "is the same picture" not in said, "which would tell it twice"
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(UserError, match=f"^{told}.*; leave each image in one of them$"):
        check_root(section(**options), tree, tree.parent / "cache")
    with pytest.raises(UserError, match=told):
        pack_splits(opened(tree, **options), section(**options), {"train": False, "val": True}, tree.parent / "cache")


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


COLOURS = {"ground": [10, 20, 30], "car": [[0, 0, 255], [0, 0, 254]], "road": [128, 64, 128]}


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


def test_facts_need_no_folder() -> None:
    facts = facts_of(section(holdout={"val": 0.1, "test": 0.1}, channels=2, classes=COLOURS))
    assert isinstance(facts, Facts)
    assert (facts.classes, facts.channels, facts.splits) == (("car", "ground", "road"), 2, ("train", "val", "test"))


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


def test_too_few_groups_for_three_splits(tree: Path) -> None:
    assert stems(tree, "train", holdout={"val": 0.2}, group="(t|v)"), "two groups make two splits"
    with pytest.raises(
        UserError, match=r"6 images are in 2 groups \('t', 'v'\), which cannot be divided into train and"
    ):
        check_root(section(holdout={"val": 0.2, "test": 0.2}, group="(t|v)"), tree, tree.parent / "cache")


def test_files_without_a_partner_are_named(tree: Path) -> None:
    (tree / "masks" / "train" / "b.png").unlink()
    with pytest.raises(UserError, match=rf"image without its label: {tree}/images/train/b.png; add the label"):
        check_root(section(**FOLDERS), tree, tree.parent / "cache")


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


@pytest.mark.parametrize("classes", [COLOURS, {"0": "a", "700": "b"}], ids=["colours", "16 bits"])
def test_what_make_cannot_write_is_refused_before_it_writes(
    classes: Any, tmp_path: Path, data_command: Callable[..., Any]
) -> None:
    options = {**FOLDERS, "classes": classes}
    given = [part for key, value in options.items() for part in ("--option", f"{key}={json.dumps(value)}")]
    code, _, err = data_command("make", "folder", tmp_path / "made", *given)
    assert code == 2 and "only RGB images with masks of values from 0 to 255 can be made" in err
    assert not (tmp_path / "made").exists()
