"""From a config to its parts: the check that builds nothing real, and the name of what is computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.config import TrainConfig, UserError, parse
from trainer.data.scenes import write_scenes
from trainer.data.stream import Stream
from trainer.files import checkpoint
from trainer.training import build
from trainer.training.build import build_distilled, build_teacher, check, open_data
from trainer.training.sources import SourceReader, run_id

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("distill", "changes", "message"),
    [
        ({"pae": {}}, {}, "unknown distiller 'pae'; did you mean 'pea'?"),
        ({"pea": {"options": {"stage_weight": [1]}}}, {}, "distill.pea: unknown option 'stage_weight'; did you mean"),
        ({"pea": {"options": {"stage_weights": [1]}}}, {}, "distill.pea: stage_weights must be a list of 4"),
        ({"pea": {}, "pea_gl": {}}, {}, "pea and pea_gl are alternatives"),
        ({"pea_gl": {"options": {"heads": 7}}}, {}, "heads must divide"),
        ({}, {"student.name": "segformer_b9"}, "unknown model 'segformer_b9'; did you mean 'segformer_b"),
        ({"pea": {}}, {"teacher.name": "segfromer_b2"}, "unknown model 'segfromer_b2'; did you mean 'segformer_b2'?"),
        ({}, {"data.name": "cityscape"}, "unknown data set 'cityscape'; did you mean 'cityscapes'?"),
        ({}, {"data.options": {"trian": 3}}, "data.options: unknown option 'trian'; did you mean 'train'?"),
        ({}, {"data.class_weights": [1.0, 2.0]}, "needs one weight for each of the 19 classes of scenes but got 2"),
        ({}, {"data.size": [32, 32], "optim.norm_batch": 1}, None),
        ({}, {"data.augment": ["scael"]}, "data.augment: unknown step 'scael'; did you mean 'scale'?"),
        ({}, {"data.augment": ["scale"]}, "images of a batch must have one size"),
        (
            {"csf": {}},
            {"data.augment": [{"crop": {"size": [32, 32]}}], "optim.norm_batch": 1},
            "BatchNorm needs more than one value a channel",
        ),
        ({"csf": {}}, {"data.size": [32, 32], "optim.norm_batch": 1}, "BatchNorm needs more than one value a channel"),
    ],
)
def test_check_refuses_what_cannot_be_built(
    distill: dict[str, Any], changes: dict[str, Any], message: str | None, tiny: Make, tmp_path: Path
) -> None:
    config = tiny(distill, changes)
    if message is None:
        check(config, tmp_path)
        return
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as error:
        check(config, tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "checks").exists()


def test_steps_reduce_labels_that_are_packed_at_the_inputs_size(tiny: Make, place: Make, tmp_path: Path) -> None:
    """Quarter labels of a list of steps need no labels of train at their own size."""
    steps = ["scale", {"crop": {"size": [64, 96]}}]
    config = tiny({}, {"data.augment": steps, "data.train_labels": "quarter"})
    data = open_data(config, place(cache_dir=tmp_path / "fresh"))
    packed = [path.name for path in (tmp_path / "fresh" / "packed").glob("*.arrow")]
    assert any("-train-" in name and "samples" in name for name in packed)
    assert not any("-train-" in name and "natives" in name for name in packed)
    assert next(Stream(data.train, config, data.learn, 0, 1).epoch(0)).label.shape == (4, 16, 24)


@pytest.mark.slow
def test_check_needs_neither_weights_nor_data_nor_memory(tiny: Make, tmp_path: Path) -> None:
    """The published setting, with files that do not exist."""
    config = tiny(
        {"csf": {}, "pea_ea": {}},
        {
            "data": {"name": "cityscapes", "size": [512, 1024]},
            "student": {"name": "segformer_b0", "init": "/nowhere/mit_b0.pth"},
            "teacher": {"name": "segformer_b5", "checkpoint": "/nowhere/b5.pth", "miou": 80.0},
        },
    )
    cost = check(config, tmp_path)
    assert set(cost) == {"params_m", "gmacs_paper", "gmacs"}
    assert cost["params_m"] == pytest.approx(3.72, abs=0.01)
    assert cost["gmacs_paper"] == pytest.approx(13.67, rel=0.02)


@pytest.mark.slow
def test_check_builds_a_structure_once(tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config: TrainConfig = tiny({"csf": {}, "pea": {}})
    cost = check(config, tmp_path)
    monkeypatch.setattr(build, "build_teacher", None)  # whoever builds, fails
    assert check(config, tmp_path) == cost
    alike = [{"seed": 5}, {"optim.lr": 1e-5}, {"optim.epochs": 9}, {"distill.pea.weight": 3.0}, {"eval.every": 2}]
    for changes in alike:
        assert check(tiny({"csf": {}, "pea": {}}, changes), tmp_path) == cost
    for changes in (
        {"distill.pea": None},
        {"distill.pea.options": {"stage_weights": [0, 0, 0, 1]}},
        {"optim.norm_batch": 4},
    ):
        with pytest.raises(TypeError):
            check(tiny({"csf": {}, "pea": {}}, changes), tmp_path)


@pytest.mark.slow
def test_run_id_names_config_data_and_weights_by_content(
    tiny: Make, place: Make, teacher_weights: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "teacher.pt"
    state = checkpoint.load(teacher_weights)
    checkpoint.save(mine, state)
    config = tiny({"pea": {}}, {"teacher.checkpoint": str(mine)})
    first = run_id(config, place())
    assert len(first) == 12
    assert run_id(config, place("elsewhere", threads=2, micro_batch=2)) == first
    assert run_id(tiny({"pea": {}}, {"teacher.checkpoint": str(mine), "seed": 1}), place()) != first
    state["model"]["linear_pred.bias"] += 1
    checkpoint.save(mine, state)
    second = run_id(config, place())
    assert second != first

    backbone = tmp_path / "backbone.pt"
    data = open_data(config, place())
    torch.save(
        {"model": build_distilled(config, build_teacher(config, place(), 19), data).student.state_dict()}, backbone
    )
    started = tiny({}, {"student.init": str(backbone)})
    third = run_id(started, place())
    weights = torch.load(backbone, weights_only=True)
    weights["model"]["patch_embed1.proj.bias"] += 1
    torch.save(weights, backbone)
    assert run_id(started, place()) != third


def test_run_id_names_the_data_by_content(tiny: Make, place: Make, tmp_path: Path) -> None:
    config = tiny(
        {},
        {
            "data.name": "cityscapes",
            "data.options": {},
            "teacher": None,
            "optim.global_batch": 2,
            "optim.norm_batch": 2,
        },
    )
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_scenes(tmp_path / name, train=2, val=1, seed=seed, size=(64, 128))
    a, b, c = (run_id(config, place(data_root=tmp_path / name, cache_dir=tmp_path / "cache")) for name in "abc")
    assert a == b != c


def only(*pixels: tuple[int, int]) -> np.ndarray:
    """A label (64, 128) in Cityscapes' label ids whose pixels are road at these (row, column) and ignored elsewhere."""
    label = np.zeros((64, 128), np.uint8)
    for pixel in pixels:
        label[pixel] = 7
    return label


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "pixel", "changes", "told"),
    [
        ("train", None, {}, "split train of {root} has no labelled pixel in the 16 labels that data.train_labels reads,"
         " each at 32x64; correct the labels, which may have other class numbers, or change data.train_labels"),
        ("val", None, {}, "split val of {root} has no labelled pixel in the 5 labels that eval.protocols reads, each at"
         " its own size; correct the labels, which may have other class numbers, or change eval.protocols"),
        ("val", (0, 0), {}, None),
        ("val", (0, 0), {"eval.protocols": ["full", "paper"]}, "that eval.protocols reads, each at 8x16; correct"),
        ("val", (4, 4), {"eval.protocols": ["full", "paper"]}, None),
        ("train", (0, 0), {}, "that data.train_labels reads, each at 32x64; correct"),
        ("train", (1, 1), {}, None),
        ("train", (1, 1), {"data.train_labels": "quarter"}, "that data.train_labels reads, each at 8x16; correct"),
    ],
)  # fmt: skip
def test_a_split_without_a_labelled_pixel_is_refused_as_it_is_read(
    split: str, pixel: Any, changes: dict[str, Any], told: str | None, tiny: Make, place: Make, tmp_path: Path
) -> None:
    """The input is half as large as the label: nearest neighbour keeps one pixel of four, a quarter one of 64."""
    root = tmp_path / "scenes"
    write_scenes(root, train=16, val=5, seed=0, size=(64, 128))
    label = Image.fromarray(only(*([pixel] if pixel else [])))
    for path in (root / "gtFine" / split / "synthetic").iterdir():
        label.save(path)
    given = {"data.name": "cityscapes", "data.options": {}, "data.size": [32, 64]}
    plain, config = tiny(None, given), tiny(None, given | changes)
    reader = SourceReader(lambda _: place(data_root=root, cache_dir=tmp_path / "cache"))
    if told is None:
        reader.read([config])
        return
    with pytest.raises(UserError) as refused:
        reader.read([plain, config] if "eval.protocols" in changes else [config])
    assert told.format(root=root) in str(refused.value)


@pytest.mark.slow
def test_a_held_out_share_without_a_labelled_pixel_is_refused(tiny: Make, place: Make, tmp_path: Path) -> None:
    root = tmp_path / "scenes"
    write_scenes(root, train=16, val=5, seed=0, size=(64, 128))
    given = {"data.name": "cityscapes", "data.options": {}, "data.select": 0.25}
    config, where = tiny(None, given), place(data_root=root, cache_dir=tmp_path / "cache")
    chosen = open_data(config, where).select
    files = sorted((root / "gtFine" / "train" / "synthetic").iterdir())
    for index in chosen:
        Image.fromarray(only()).save(files[index])
    told = f"split train of {root} has no labelled pixel in the 4 labels that data.select reads, each at its own size"
    with pytest.raises(UserError, match=told):
        open_data(config, where)


def test_run_id_of_a_taught_run_names_the_teachers_run(tiny: Make, place: Make) -> None:
    ids = set()
    for epochs in (1, 2):
        teacher = {"name": "segformer_mini", "train": {"epochs": epochs}}
        ids.add(run_id(tiny({"pea": {}}, {"teacher": teacher}), place()))
    assert len(ids) == 2
    reader = SourceReader(lambda config: place())
    config = tiny({"pea": {}}, {"teacher": {"name": "segformer_mini", "train": {"epochs": 1}}})
    assert reader.run_id(config) in ids
    assert len(reader.sources.data) == 1, "a pupil and its teacher read one data set"


def test_a_teacher_with_a_recipe_and_no_weights_is_refused(tiny: Make, place: Make, teacher_weights: Path) -> None:
    config = tiny({"pea": {}}, {"teacher": {"name": "segformer_mini", "train": {"epochs": 1}}})
    with pytest.raises(UserError, match="has a recipe but no weights; `transkd run` trains it first, or give --t"):
        build_teacher(config, place(), 19)
    teacher = build_teacher(config, place(teacher=teacher_weights), 19)
    assert teacher is not None and not teacher.training


def test_a_student_starts_from_a_backbone(tiny: Make, place: Make, tmp_path: Path) -> None:
    scratch = tiny()
    data = open_data(scratch, place())
    other = build_distilled(tiny({}, {"seed": 9}), None, data).student
    torch.save(other.state_dict(), tmp_path / "backbone.pt")
    student = build_distilled(tiny({}, {"student.init": str(tmp_path / "backbone.pt")}), None, data).student
    fresh = build_distilled(scratch, None, data).student
    for name, tensor in student.state_dict().items():
        source = fresh if name.startswith("linear_") else other
        assert torch.equal(tensor, source.state_dict()[name]), name


def test_automatic_class_weights_are_those_of_the_data(tiny: Make, place: Make) -> None:
    config = tiny({}, {"data.class_weights": "auto"})
    data = open_data(config, place())
    weights = build_distilled(config, None, data).class_weights
    assert weights is not None
    assert weights.shape == (19,) and weights.dtype == torch.float32
    assert weights[int(data.train.class_counts.argmax())] == weights.min()
    assert build_distilled(tiny(), None, data).class_weights is None


@pytest.mark.slow
def test_checked_costs_are_plain_json(tiny: Make, tmp_path: Path) -> None:
    cost = check(parse(tiny().model_dump(mode="json")), tmp_path)
    (file,) = (tmp_path / "checks").iterdir()
    assert json.loads(file.read_text()) == cost
