"""What each layout has of its own: lists, conditions, folders, and what its label values mean."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.config import IGNORE, DataConfig, UserError
from trainer.data import SegDataset, open_dataset
from trainer.data.acdc import ACDC
from trainer.data.cityscapes import LABEL_IDS, Cityscapes
from trainer.data.nyuv2 import FOLDERS, NYUv2
from trainer.data.voc2012 import VOC2012
from trainer.training.loop import fit

Made = Callable[..., SegDataset]


@pytest.fixture
def made(data_command: Callable[..., Any], tmp_path: Path) -> Made:
    """made("voc2012", "--train", 5) -> the data set, open, in tmp_path / "voc2012"."""

    def make(name: str, *arguments: str | int) -> SegDataset:
        code, _, err = data_command("make", name, tmp_path / name, *arguments)
        assert code == 0, err
        return open_dataset(DataConfig(name=name), tmp_path / name, tmp_path / "cache")

    return make


def values(path: Path, *rows: list[int]) -> Path:
    Image.fromarray(np.array(rows, np.uint8)).save(path)
    return path


def test_a_picture_listed_for_both_splits_is_refused_by_its_stem(made: Made, tmp_path: Path) -> None:
    dataset = made("voc2012")
    lists = tmp_path / "voc2012" / "ImageSets" / "Segmentation"
    with (lists / "train.txt").open("a") as file:
        file.write("val_000001\n")
    told = f"listed for both train and val, in {lists}/train.txt and {lists}/val.txt: val_000001; take it out of the"
    for split in ("train", "val"):
        with pytest.raises(UserError, match=told):
            dataset.pairs(split)


def test_what_a_list_names_must_be_there_once(made: Made, tmp_path: Path) -> None:
    dataset = made("nyuv2")
    path = tmp_path / "nyuv2" / "train.txt"
    with path.open("a") as file:
        file.write("999\n")
    with pytest.raises(UserError, match=f"listed in {path} but without image and label: 999; complete"):
        dataset.pairs("train")
    path.write_text("train_00000\ntrain_00001\ntrain_00000\n")
    with pytest.raises(UserError, match=f"{path} names train_00000 twice"):
        dataset.pairs("train")
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read the list .*train\.txt; expected the layout"):
        dataset.pairs("val")


def test_lists_of_paths_are_read_as_lists_of_stems(made: Made, tmp_path: Path) -> None:
    """As in prepared copies: `RGB/0.jpg Label/0.png`, `/JPEGImages/2007_000032.jpg /SegmentationClassAug/...`."""
    dataset = made("nyuv2")
    before = dataset.pairs("train")
    (tmp_path / "nyuv2" / "train.txt").write_text(
        "".join(f"RGB/{pair.stem}.jpg Label/{pair.stem}.png\n\n" for pair in reversed(before))
    )
    assert dataset.pairs("train") == before


def test_a_list_may_name_stems_with_blanks(made: Made, tmp_path: Path) -> None:
    dataset = made("nyuv2")
    before = dataset.pairs("train")
    for pair in before:
        for path in (pair.image, pair.label):
            path.rename(path.with_stem(path.stem.replace("_", " ")))
    (tmp_path / "nyuv2" / "train.txt").write_text(
        "".join(f"{pair.stem.replace('_', ' ')}\n" for pair in reversed(before))
    )
    assert [pair.stem for pair in dataset.pairs("train")] == [pair.stem.replace("_", " ") for pair in before]


def test_aug_is_another_list_with_other_labels_and_the_same_val(
    data_command: Callable[..., Any], tmp_path: Path
) -> None:
    root = tmp_path / "voc2012"
    data_command("make", "voc2012", root, "--option", "aug=true", "--train", 6)
    plain, aug = (VOC2012(root, cache=tmp_path, aug=flag) for flag in (False, True))
    assert len(aug.pairs("train")) == 6
    assert {pair.label.parent.name for pair in aug.pairs("train")} == {"SegmentationClassAug"}
    assert aug.pairs("val") == [p for p in aug.pairs("val") if p.label.parent.name == "SegmentationClass"]
    assert (aug.official.train, aug.official.val) == (10582, 1449)
    with pytest.raises(UserError, match=r"cannot read the list .*ImageSets/Segmentation/train\.txt"):
        plain.pairs("train")


def test_voc_is_read_by_index_whatever_its_colours(made: Made, tmp_path: Path) -> None:
    dataset = made("voc2012")
    path = values(tmp_path / "x.png", [0, 20, 255])
    assert dataset.read_label(path)[0].tolist() == [0, 20, IGNORE]
    pair = dataset.pairs("train")[0]
    with Image.open(pair.label) as file:
        assert file.mode == "P"
        assert set(np.unique(np.asarray(file))) <= {*range(21), 255}
    with pytest.raises(UserError, match=r"holds 21 .* may hold 0\.\.20, or 255 \(ignored\)"):
        dataset.read_label(values(tmp_path / "y.png", [21]))
    sizes = {dataset.read(pair)[1].shape for pair in dataset.pairs("train")}
    assert sizes == {(64, 128), (128, 64)}


def test_voc_colours_are_those_of_the_development_kit() -> None:
    colours = dict(zip(VOC2012.classes, VOC2012.palette, strict=True))
    published = {
        "background": (0, 0, 0), "aeroplane": (128, 0, 0), "boat": (0, 0, 128), "cat": (64, 0, 0),
        "person": (192, 128, 128), "pottedplant": (0, 64, 0), "tvmonitor": (0, 64, 128),
    }  # fmt: skip
    assert {name: colours[name] for name in published} == published


def test_nyu_counts_from_1_and_0_is_nobodys(made: Made, tmp_path: Path) -> None:
    """The published code subtracts one through PIL, which clips: there 0 becomes wall. Ours is ignored."""
    dataset = made("nyuv2")
    assert dataset.read_label(values(tmp_path / "x.png", [0, 1, 40, 255]))[0].tolist() == [IGNORE, 0, 39, IGNORE]
    assert (NYUv2.classes[0], NYUv2.classes[39]) == ("wall", "otherprop")
    with Image.open(tmp_path / "x.png") as file:
        assert np.asarray(file.point(lambda value: value - 1))[0].tolist()[:3] == [0, 0, 39]
    with pytest.raises(UserError, match="holds 41"):
        dataset.read_label(values(tmp_path / "y.png", [41]))


@pytest.mark.parametrize("folders", FOLDERS)
def test_nyu_is_found_under_each_of_its_names(made: Made, tmp_path: Path, folders: tuple[str, str]) -> None:
    dataset = made("nyuv2")
    for given, name in zip(FOLDERS[0], folders, strict=True):
        (tmp_path / "nyuv2" / given).rename(tmp_path / "nyuv2" / name)
    assert [len(dataset.pairs(split)) for split in ("train", "val")] == [4, 4]
    shutil.rmtree(tmp_path / "nyuv2" / folders[1])
    with pytest.raises(UserError, match=r"no folders RGB and Label in .*; expected the layout"):
        dataset.pairs("train")


@pytest.mark.slow
def test_acdc_is_all_its_conditions_by_stem(made: Made, tmp_path: Path) -> None:
    dataset = made("acdc", "--val", 6)
    stems = [pair.stem for pair in dataset.pairs("val")]
    assert stems[0] == "fog/SYNTH0000/SYNTH0000_frame_000001"
    assert {name: indices.tolist() for name, indices in dataset.conditions(stems).items()} == {
        "fog": [0, 1], "night": [2, 3], "rain": [4], "snow": [5],
    }  # fmt: skip
    assert (ACDC.classes, ACDC.palette) == (Cityscapes.classes, Cityscapes.palette)
    official = ACDC.official
    assert [sum(counts[i] for counts in official.conditions.values()) for i in (0, 1)] == [1600, 406]
    shutil.rmtree(tmp_path / "acdc" / "rgb_anon" / "night")
    with pytest.raises(UserError, match=r"label without its image: .*gt/night/val"):
        dataset.pairs("val")
    shutil.rmtree(tmp_path / "acdc" / "gt" / "night")
    assert set(dataset.conditions([pair.stem for pair in dataset.pairs("val")])) == {"fog", "rain", "snow"}


def test_acdc_prefers_train_ids_and_reads_label_ids(made: Made) -> None:
    dataset = made("acdc")
    pair = dataset.pairs("train")[0]
    assert pair.label.name.endswith("_gt_labelTrainIds.png")
    ids = pair.label.with_name(pair.label.name.replace("labelTrainIds", "labelIds"))
    values(ids, [LABEL_IDS["car"], 0])
    assert dataset.pairs("train")[0].label == pair.label
    pair.label.unlink()
    assert dataset.pairs("train")[0].label == ids
    assert dataset.read_label(ids)[0].tolist() == [Cityscapes.classes.index("car"), IGNORE]


@pytest.mark.slow
def test_a_run_reports_the_four_conditions(made: Made, tiny: Any, place: Any, tmp_path: Path) -> None:
    made("acdc")
    changes = {"data.name": "acdc", "data.options": {}, "optim.epochs": 1, "eval.protocols": ["paper", "full"]}
    where = place(data_root=tmp_path / "acdc", cache_dir=tmp_path / "cache")
    last = fit(tiny(None, changes), where, report=lambda metrics, path: None)["last"]
    found = {name for name in last if name.startswith("val/") and name.endswith("/miou")}
    assert found == {"val/miou", "val/full/miou", *(f"val/{name}/miou" for name in ("fog", "night", "rain", "snow"))}
