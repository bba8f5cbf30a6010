"""What every data set must keep, present and future: made, checked, opened, packed, and no mistake passes unnamed."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from ablations.study.metric import CONDITIONS
from trainer.config import IGNORE, DataConfig, UserError
from trainer.contract.datasets import CHECKS, Made
from trainer.data import DATASETS, SegDataset, open_dataset, pack
from trainer.data.base import INVALID
from trainer.data.check import Contents, check_split
from trainer.data.pairing import Pair, Split

SPLITS: tuple[Split, ...] = ("train", "val")
OPTIONS: dict[str, dict[str, Any]] = {
    "folder": {
        "images": {"train": "photos/train", "val": "photos/val"},
        "masks": {"train": "labels/train", "val": "labels/val"},
        "classes": [f"class {i}" for i in range(12)],
    }
}
"""What a data set cannot be opened without."""


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory, data_command: Callable[..., Any]) -> Callable[[str], Path]:
    """trees("acdc") -> the folder that `data make acdc` has written; not to be changed."""
    base = tmp_path_factory.mktemp("trees")

    def tree(name: str) -> Path:
        root = base / name
        if not root.exists():
            code, out, err = data_command("make", name, root, *given(name))
            assert (code, err) == (0, ""), err
            assert f"data check {name} {root} --subset" in out
        return root

    return tree


@pytest.fixture
def copy(trees: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """copy("acdc") -> a copy of that tree, to be damaged."""
    return lambda name: Path(shutil.copytree(trees(name), tmp_path / name))


def section(name: str) -> DataConfig:
    return DataConfig(name=name, size=(32, 64), options=OPTIONS.get(name, {}))


def given(name: str) -> list[str]:
    """The options on a command line."""
    return [part for key, value in OPTIONS.get(name, {}).items() for part in ("--option", f"{key}={json.dumps(value)}")]


def opened(name: str, root: Path) -> SegDataset:
    return open_dataset(section(name), root, root.parent / "cache")


def checked(dataset: SegDataset, split: Split, subset: bool = True) -> Contents:
    return check_split(dataset, split, subset=subset, progress=lambda done, of: None)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_every_data_set_keeps_the_contract(
    check: Callable[[Made], None], name: str, trees: Callable[[str], Path]
) -> None:
    check(Made(name, trees(name), OPTIONS.get(name, {})))


@pytest.mark.parametrize("name", DATASETS)
def test_what_make_writes_is_whole_and_right(name: str, trees: Callable[[str], Path]) -> None:
    dataset = opened(name, trees(name))
    for split in SPLITS:
        contents = checked(dataset, split)
        assert contents.problems == []
        assert contents.pairs == 4
        assert 0 < contents.ignored < contents.counts.sum(), "every tree shows what is not judged"
        assert contents.counts.shape == (len(dataset.classes),)


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_the_fingerprint_is_the_one_that_enters_a_runs_identity(name: str, trees: Callable[[str], Path]) -> None:
    root = trees(name)
    dataset, config = opened(name, root), section(name)
    for split in SPLITS:
        contents, packed = checked(dataset, split), pack(dataset, config, split, root.parent / "cache")
        assert contents.fingerprint == packed.fingerprint
        np.testing.assert_array_equal(contents.counts, packed.class_counts)
        image, label = packed.sample(0)
        assert (image.shape, label.shape) == ((32, 64, 3), (32, 64))
        assert contents.sizes.total() == 4
        assert set(contents.sizes) == {packed.native_label(i).shape for i in range(4)}


@pytest.mark.parametrize("name", DATASETS)
def test_a_part_is_no_whole_unless_said(name: str, trees: Callable[[str], Path]) -> None:
    dataset = opened(name, trees(name))
    for split in SPLITS:
        want = dataset.official.pairs(split)
        told = [line for line in checked(dataset, split, subset=False).problems if f"4 of {want} (official)" in line]
        assert len(told) == (want not in (0, 4))


@pytest.mark.parametrize("name", DATASETS)
def test_every_mistake_is_named(name: str, copy: Callable[[str], Path]) -> None:
    """All at once, each in a pair of its own: none hides another."""
    root = copy(name)
    dataset = opened(name, root)
    pairs = {split: dataset.pairs(split) for split in SPLITS}
    stranger = int(np.flatnonzero(dataset.table(pairs["train"][0].label) == INVALID)[0])
    expected: dict[Split, list[str]] = {"train": [], "val": []}

    def mistake(split: Split, position: int, make: Callable[[Pair], str]) -> None:
        expected[split].append(make(pairs[split][position]))

    mistake("train", 0, _no_label)
    mistake("train", 1, _no_image)
    mistake("train", 2, lambda pair: _painted(pair, stranger))
    mistake("train", 3, _other_size)
    mistake("val", 0, _coloured)
    mistake("val", 1, lambda pair: _cut(pair.image))
    mistake("val", 2, lambda pair: _cut(pair.label))
    for split, texts in expected.items():
        contents = checked(dataset, split)
        assert len(contents.problems) == len(texts)
        for text in texts:
            assert any(text in problem for problem in contents.problems), (text, contents.problems)
        assert contents.fingerprint is None
        with pytest.raises(UserError):  # and no run starts
            pack(dataset, section(name), split, root.parent / "cache")


def _no_label(pair: Pair) -> str:
    pair.label.unlink()
    return f"image without its label: {pair.image}; add"


def _no_image(pair: Pair) -> str:
    pair.image.unlink()
    return f"label without its image: {pair.label}; add"


def _painted(pair: Pair, value: int) -> str:
    with Image.open(pair.label) as file:
        values = np.array(file)
    values[3, 5] = value
    Image.fromarray(values).save(pair.label)
    return f"label {pair.label} holds {value} at row 3, column 5 (1 such pixels)"


def _other_size(pair: Pair) -> str:
    with Image.open(pair.label) as file:
        smaller = file.resize((40, 20), Image.Resampling.NEAREST)
    smaller.save(pair.label)
    return f"but its label {pair.label} is 40x20"


def _coloured(pair: Pair) -> str:
    with Image.open(pair.label) as file:
        colours = file.convert("RGB")
    colours.save(pair.label)
    return f"label {pair.label} has colour mode RGB"


def _cut(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:-100])
    return f"cannot read {path} as an image"


def _fingerprints(dataset: SegDataset) -> list[str | None]:
    """Of train and val, which must have no problem."""
    found = [checked(dataset, split) for split in SPLITS]
    assert [contents.problems for contents in found] == [[], []]
    return [contents.fingerprint for contents in found]


def _files(dataset: SegDataset) -> list[Path]:
    return [path for split in SPLITS for pair in dataset.pairs(split) for path in (pair.image, pair.label)]


def _lists(dataset: SegDataset) -> list[Path]:
    return list({path for split in SPLITS for path in dataset.find(split).lists.values()})


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".PNG", ".Png"])
def test_endings_are_read_in_any_case(name: str, ending: str, copy: Callable[[str], Path]) -> None:
    """Content tells the format: a data set's images may be JPEG and PNG, whatever its layout names."""
    dataset = opened(name, copy(name))
    before = _fingerprints(dataset)
    for path in _files(dataset)[::3]:  # images of some pairs, labels of others
        label = "label" in str(path).lower() or "gt" in path.parts or path.parent.name.startswith("Segmentation")
        path.rename(path.with_suffix(ending if not label else path.suffix.upper()))
    assert _fingerprints(dataset) == before


@pytest.mark.parametrize("name", DATASETS)
def test_hidden_files_and_folders_are_no_data(name: str, copy: Callable[[str], Path]) -> None:
    """macOS writes ._x.png beside x.png on other systems' disks, and so beside each folder and list."""
    root = copy(name)
    dataset = opened(name, root)
    before = _fingerprints(dataset)
    for path in [*root.rglob("*")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    for path in _files(dataset):
        hidden = path.parent.with_name(f".{path.parent.name}") / path.name
        hidden.parent.mkdir(exist_ok=True)
        hidden.write_bytes(b"no picture")
    assert _fingerprints(dataset) == before


@pytest.mark.parametrize("name", DATASETS)
def test_lists_of_other_systems(name: str, copy: Callable[[str], Path]) -> None:
    """A byte order mark, Windows' line ends and backslashes, and an end without a line end change nothing."""
    dataset = opened(name, copy(name))
    before = _fingerprints(dataset)
    for path in _lists(dataset):
        lines = [f"RGB\\{stem}.JPG\tLabel\\{stem}.PNG" for stem in path.read_text(encoding="utf-8").split()]
        path.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert _fingerprints(dataset) == before
    for path in _lists(dataset):
        path.write_bytes("größe\n".encode("latin-1"))
        with pytest.raises(UserError, match=rf"^{path.parent}/.*: line 1 is not text in UTF-8 .*; save"):
            dataset.pairs("train")


@pytest.mark.parametrize("name", DATASETS)
def test_accents_may_be_composed_or_not(name: str, copy: Callable[[str], Path]) -> None:
    """macOS's names hold `e` and an accent where others hold `é`: files, folders and lists may differ in it."""
    root = copy(name)
    dataset = opened(name, root)
    forms: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
    composed, decomposed = (unicodedata.normalize(form, "é") for form in forms)
    found = []
    for image, label in ((composed, composed), (decomposed, decomposed), (decomposed, composed)):
        changed = Path(shutil.copytree(root, root.parent / f"{image}{label}" / name))
        for position, path in enumerate(_files(opened(name, changed))):
            path.rename(path.with_name((label if position % 2 else image) + path.name))
        for path in _lists(opened(name, changed)):
            stems = path.read_text(encoding="utf-8").split()
            path.write_text("".join(f"{label}{stem}\n" for stem in stems), encoding="utf-8")
        found.append(_fingerprints(opened(name, changed)))
    assert found[0] == found[1] == found[2] != _fingerprints(dataset)


@pytest.mark.parametrize("name", DATASETS)
def test_a_name_that_is_not_utf8_is_refused(name: str, copy: Callable[[str], Path]) -> None:
    dataset = opened(name, copy(name))
    image = dataset.pairs("train")[0].image
    strange = os.fsencode(image.parent) + b"/\xff" + os.fsencode(image.name)
    image.rename(os.fsdecode(strange))
    told = f"the name {strange!r} is not UTF-8; rename it"
    assert checked(dataset, "train").problems == [told]
    with pytest.raises(UserError) as refused:
        dataset.pairs("train")
    assert str(refused.value) == told


@pytest.mark.parametrize("name", DATASETS)
def test_a_root_that_is_not_utf8_is_refused(name: str, copy: Callable[[str], Path]) -> None:
    root = copy(name)
    strange = root.rename(os.fsdecode(os.fsencode(root) + b"\xff"))
    with pytest.raises(UserError, match=rf"^the name b'.*{name}\\xff' is not UTF-8; rename it$"):
        opened(name, strange)


STEMS = {
    "cityscapes": "synthetic/synthetic_000000_000019",
    "acdc": "fog/SYNTH0000/SYNTH0000_frame_000001",
    "nyuv2": "train_00000",
    "voc2012": "train_000000",
    "camvid": "made_00000",
    "folder": "made_00000",
    "scenes": "synthetic/synthetic_000000_000019",
}


@pytest.mark.parametrize("name", DATASETS)
def test_stems_stay_as_they_enter_fingerprints(name: str, trees: Callable[[str], Path]) -> None:
    assert opened(name, trees(name)).pairs("train")[0].stem == STEMS[name]


@pytest.mark.parametrize("name", DATASETS)
def test_255_is_ignored_and_never_a_class(name: str, copy: Callable[[str], Path]) -> None:
    dataset = opened(name, copy(name))
    before, pair = checked(dataset, "train"), dataset.pairs("train")[0]
    label = dataset.read_label(pair.label)
    with Image.open(pair.label) as file:
        values = np.array(file)
    values[:] = 255
    Image.fromarray(values).save(pair.label)
    assert (dataset.read_label(pair.label) == IGNORE).all()
    after = checked(dataset, "train")
    assert after.problems == []
    gone = np.bincount(label[label != IGNORE], minlength=len(dataset.classes))
    np.testing.assert_array_equal(before.counts - after.counts, gone)
    assert after.ignored - before.ignored == gone.sum()


@pytest.mark.parametrize("name", DATASETS)
def test_a_split_without_a_labelled_pixel_is_a_problem(name: str, copy: Callable[[str], Path]) -> None:
    dataset = opened(name, copy(name))
    for pair in dataset.pairs("val"):
        with Image.open(pair.label) as file:
            Image.fromarray(np.full(np.asarray(file).shape, IGNORE, np.uint8)).save(pair.label)
    whole, part = (checked(dataset, "val", subset=subset) for subset in (False, True))
    told = [problem for problem in whole.problems if "pixel" in problem]
    assert (
        part.problems
        == told
        == [
            f"split val of {dataset.root} has no labelled pixel; correct the labels, which may have been exported with "
            "other class numbers"
        ]
    )
    assert part.fingerprint is None
    assert checked(dataset, "train").problems == []


@pytest.mark.parametrize("name", DATASETS)
def test_conditions_are_those_that_tables_know(name: str, trees: Callable[[str], Path]) -> None:
    dataset = opened(name, trees(name))
    stems = [pair.stem for pair in dataset.pairs("val")]
    found = dataset.conditions(stems)
    assert set(found) == set(dataset.official.conditions) == set(CONDITIONS.get(name, ())), "`val/<condition>/miou`"


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_pictures_are_a_function_of_the_seed(
    name: str, trees: Callable[[str], Path], data_command: Callable[..., Any], tmp_path: Path
) -> None:
    for folder, seed in (("same", 0), ("other", 1)):
        assert data_command("make", name, tmp_path / folder, "--seed", seed, *given(name))[0] == 0
    first, same, other = (
        checked(opened(name, root), "val") for root in (trees(name), tmp_path / "same", tmp_path / "other")
    )
    assert first.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize("name", DATASETS)
def test_nothing_is_written_over(name: str, data_command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    code, _, err = data_command("make", name, tmp_path, *given(name))
    assert (code, err) == (2, f"error: {tmp_path} is not an empty folder; choose an empty or new one\n")
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


# Pairs in train and val, (height, width), classes: as published with each data set.
PUBLISHED = {
    "cityscapes": (2975, 500, (1024, 2048), 19),
    "acdc": (1600, 406, (1080, 1920), 19),
    "nyuv2": (795, 654, (480, 640), 40),
    "voc2012": (1464, 1449, None, 21),
    "camvid": (367, 101, (360, 480), 11),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_official_numbers(name: str, tmp_path: Path) -> None:
    dataset = DATASETS[name](tmp_path, cache=tmp_path)
    assert (*dataset.official[:3], len(dataset.classes)) == PUBLISHED[name]
