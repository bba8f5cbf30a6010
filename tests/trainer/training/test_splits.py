"""The test split: evaluated once, at the end, beside val; it changes no weight, and nothing is selected by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.config import DataConfig, TrainConfig, UserError, check_cohort, data_key, parse
from trainer.data import check_root
from trainer.files import checkpoint, run_folder
from trainer.place import Place
from trainer.training.build import check
from trainer.training.loop import fit

Make = Callable[..., Any]
SPLITS = {"train": 8, "val": 3, "test": 2}
OPTIONS = {
    "images": {split: f"images/{split}" for split in SPLITS},
    "masks": {split: f"masks/{split}" for split in SPLITS},
    "classes": ["left", "right"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise that is darker on the left, in three splits."""
    root = tmp_path_factory.mktemp("mine")
    rng = np.random.default_rng(0)
    for split, count in SPLITS.items():
        for at in range(count):
            label = np.zeros((40, 64), np.uint8)
            label[:, 20 + 2 * at :] = 1
            image = (label[..., None] * 80 + rng.integers(0, 120, (40, 64, 3))).astype(np.uint8)
            for kind, pixels in (("images", image), ("masks", label)):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / kind / split / f"{split}{at}.png")
    return root


def config(**changes: Any) -> TrainConfig:
    return parse(
        {
            "data": {"name": "folder", "size": [32, 64], "options": OPTIONS},
            "student": {"name": "segformer_tiny"},
            "optim": {"lr": 1.0e-3, "epochs": 2, "global_batch": 4},
            **changes,
        }
    )


TESTED = {"eval": {"splits": ["val", "test"]}}


@pytest.fixture(scope="module")
def runs(root: Path, scenes_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run without and with its test split."""
    base = tmp_path_factory.mktemp("runs")
    for name, asked in (("val", config()), ("test", config(**TESTED))):
        place = Place(out_dir=base / name, cache_dir=scenes_cache, data_root=root, device="cpu")
        fit(asked, place, report=lambda metrics, checkpoint: None)
    return {name: base / name for name in ("val", "test")}


@pytest.mark.slow
def test_test_is_measured_at_the_last_epoch_alone_and_changes_nothing_else(runs: dict[str, Path]) -> None:
    plain, tested = (run_folder.read_epochs(runs[name]) for name in ("val", "test"))
    assert [[name for name in epoch if name.startswith("test/")] for epoch in tested] == [
        [],
        ["test/miou", "test/iou/left", "test/iou/right", "test/classes_present"],
    ]
    val = [{k: v for k, v in epoch.items() if k.startswith(("val/", "loss"))} for epoch in plain]
    assert val == [{k: v for k, v in epoch.items() if k.startswith(("val/", "loss"))} for epoch in tested]
    models = [checkpoint.load(runs[name] / "last.pt")["model"] for name in ("val", "test")]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())
    best = [checkpoint.load(runs[name] / "best.pt")["epoch"] for name in ("val", "test")]
    assert best[0] == best[1]


def test_the_images_of_test_enter_the_id(runs: dict[str, Path]) -> None:
    plain, tested = (json.loads((runs[name] / "result.json").read_text(encoding="utf-8")) for name in ("val", "test"))
    assert set(plain["data"]) == {"train", "val"} and set(tested["data"]) == {"train", "val", "test"}
    assert len({plain["run_id"], tested["run_id"]}) == 2
    data = config().data
    assert data_key(data) == data_key(data, ("val",)) != data_key(data, ("val", "test"))


@pytest.mark.slow
def test_eval_of_the_test_split_gives_what_the_run_recorded(
    runs: dict[str, Path], root: Path, command: Make, tmp_path: Path
) -> None:
    out = tmp_path / "eval.json"
    arguments = (runs["test"] / "last.pt", "--split", "test", "--data-root", root, "--json", out)
    code, said, errors = command("eval", *arguments)
    assert (code, errors) == (0, "")
    last = run_folder.read_epochs(runs["test"])[-1]
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["metrics"] == {name: value for name, value in last.items() if name.startswith("test/")}
    assert f"data      folder test: 2 images at 32x64, 2 of 2 classes occur, fingerprint {told['fingerprint']}" in said


def test_predictions_of_the_test_split(runs: dict[str, Path], root: Path, command: Make, tmp_path: Path) -> None:
    code, _, errors = command(
        "predict", runs["val"] / "best.pt", root / "images" / "test", "--out", tmp_path / "out", "--ids", "train"
    )
    assert (code, errors) == (0, "")
    with Image.open(tmp_path / "out" / "train_ids" / "test0.png") as file:
        assert set(np.unique(np.asarray(file))) <= {0, 1}


@pytest.mark.slow
def test_a_data_set_without_a_test_split_is_told_before_a_folder_is_looked_at(
    command: Make, finished: Make, tmp_path: Path
) -> None:
    asked = parse({"data": {"name": "voc2012"}, "student": {"name": "segformer_tiny"}, **TESTED})
    with pytest.raises(
        UserError, match=r"eval\.splits: data set 'voc2012' has no labelled split test, only train, val; "
    ):
        check(asked, tmp_path)
    code, _, said = command("eval", finished() / "last.pt", "--split", "test")
    assert (code, said.count("\n")) == (2, 1)
    assert "--split: data set 'scenes' has no labelled split test, only train, val; name another" in said


def test_camvid_has_a_test_split_where_its_images_are(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
            Image.new("L", (40, 40), 1).save(tmp_path / kind / split / f"{split}.png")
    data = DataConfig(name="camvid")
    check_root(data, tmp_path, tmp_path / "cache")
    with pytest.raises(UserError, match="'camvid' has no labelled split test, only train, val"):
        check_root(data, tmp_path, tmp_path / "cache", ("val", "test"))
    for kind in ("images", "labels"):
        (tmp_path / kind / "test").mkdir()
        Image.new("L", (40, 40), 1).save(tmp_path / kind / "test" / "x.png")
    check_root(data, tmp_path, tmp_path / "cache", ("val", "test"))


@pytest.mark.parametrize("splits", [[], ["test"], ["test", "val"], ["val", "val"]])
def test_runs_are_always_selected_by_val(splits: list[str]) -> None:
    with pytest.raises(UserError, match=r"eval: splits must be \[val\] or \[val, test\], as runs are selected by val"):
        config(eval={"splits": splits})


def test_runs_that_read_other_splits_do_not_train_side_by_side() -> None:
    with pytest.raises(UserError, match="cannot train side by side"):
        check_cohort([config(), config(**TESTED)], ["a", "b"])
