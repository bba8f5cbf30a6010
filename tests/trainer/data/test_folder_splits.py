"""The data set `folder`: shares held out by group, and images that stand in two splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainer.data.own_folder import CLASSES, FOLDERS, VIDEOS, mask, opened, section, stems
from trainer.config import UserError
from trainer.data import check_root, pack_splits


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


def test_too_few_groups_for_three_splits(tree: Path) -> None:
    assert stems(tree, "train", holdout={"val": 0.2}, group="(t|v)"), "two groups make two splits"
    with pytest.raises(
        UserError, match=r"6 images are in 2 groups \('t', 'v'\), which cannot be divided into train and"
    ):
        check_root(section(holdout={"val": 0.2, "test": 0.2}, group="(t|v)"), tree, tree.parent / "cache")


@pytest.mark.slow
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
