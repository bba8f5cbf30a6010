"""Student and teacher with their weights: refused early, recorded, and shown images as their weights want them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.config import ModelConfig, UserError
from trainer.data.stream import normalise
from trainer.files import checkpoint
from trainer.files.file_digest import file_digest
from trainer.models import build_model
from trainer.training.build import build_distilled, build_teacher, check, open_data
from trainer.training.evaluation.evaluate import evaluate
from trainer.training.loop import fit
from trainer.training.teacher import Teacher, verify

Make = Callable[..., Any]
NEEDS = frozenset({"logits", "features", "embeds"})


def save(path: Path, name: str, classes: int, *, without: tuple[str, ...] = ("\0",)) -> Path:
    """A plain state dict, as the reference writes them."""
    state = build_model(ModelConfig(name=name), classes).state_dict()
    torch.save({key: tensor for key, tensor in state.items() if not key.startswith(without)}, path)
    return path


@pytest.mark.parametrize(("given", "wanted"), [("unit", "imagenet"), ("imagenet", "unit")])
def test_a_teacher_sees_images_scaled_as_its_weights_want(given: Any, wanted: Any) -> None:
    model = build_model(ModelConfig(name="segformer_tiny"), 19).eval()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    shown = Teacher(model, NEEDS, False, given, wanted)(normalise(image, given))
    alone = Teacher(model, NEEDS, False)(normalise(image, wanted))
    torch.testing.assert_close(shown, alone, atol=1e-5, rtol=1e-5)
    unscaled = Teacher(model, NEEDS, False)(normalise(image, given))
    assert not torch.allclose(unscaled.embeds[0], alone.embeds[0], atol=1e-2)


@pytest.mark.slow
def test_a_teacher_is_measured_as_it_will_be_shown_images(tiny: Make, place: Make, tmp_path: Path) -> None:
    weights = save(tmp_path / "20.pth", "segformer_mini", 20)
    measured = {}
    for normalize in ("imagenet", "unit"):
        stated = {"name": "segformer_mini", "checkpoint": str(weights), "miou": 0.0, "normalize": normalize}
        config = tiny({"pea": {}}, {"teacher": stated})
        data, here = open_data(config, place()), place(cache_dir=tmp_path / normalize)
        model = build_teacher(config, here, 19)
        verify(Teacher(model, NEEDS, False, "imagenet", config.teacher.normalize), config, data, here)
        (file,) = (tmp_path / normalize / "teachers").iterdir()
        measured[normalize] = json.loads(file.read_text())
        seen = config.data.model_copy(update={"normalize": normalize})
        assert measured[normalize] == evaluate(model, data.val, data.classes, seen, ("full",))["val/miou"]
    assert measured["imagenet"] != measured["unit"]


@pytest.mark.slow
def test_a_run_says_which_weights_it_used(tiny: Make, place: Make, tmp_path: Path) -> None:
    """A teacher with the reference's void class, of another normalisation, and a student with a part of a backbone."""
    teacher = save(tmp_path / "teacher.pth", "segformer_mini", 20)
    backbone = save(tmp_path / "backbone.pth", "segformer_tiny", 19, without=("linear_", "norm4"))
    changes = {
        "student": {"name": "segformer_tiny", "init": str(backbone), "partial": True},
        "teacher": {"name": "segformer_mini", "checkpoint": str(teacher), "normalize": "unit"},
        "optim.epochs": 1,
    }
    config = tiny({"pea": {}, "kd": {}}, changes)
    check(config, tmp_path / "cache")
    fit(config, place(), report=lambda metrics, path: None)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["weights"] == {
        "student": {
            "file": str(backbone),
            "sha256": file_digest(backbone),
            "format": "NVlabs ImageNet MiT",
            "loaded": 118,
            "missing": 2,
            "unexpected": 0,
            "mismatched": 0,
            "normalize": "imagenet",
        },
        "teacher": {
            "file": str(teacher),
            "sha256": file_digest(teacher),
            "run_id": "",
            "format": "TransKD SegFormer",
            "loaded": 116,
            "missing": 0,
            "unexpected": 0,
            "mismatched": 0,
            "normalize": "unit",
        },
    }


@pytest.mark.slow
def test_weights_that_do_not_fit_are_refused_before_anything_runs(tiny: Make, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    init = tiny({}, {"student.init": str(path)})
    taught = tiny({"pea": {}}, {"teacher": {"name": "segformer_mini", "checkpoint": str(path)}})
    check(init, tmp_path)  # on another machine the file may be there
    check(taught, tmp_path)

    save(path, "segformer_tiny", 11)
    check(init, tmp_path)
    with pytest.raises(UserError, match=r"w\.pth has 11 outputs, but the data has 19 classes"):
        check(taught, tmp_path)
    save(path, "segformer_mini", 19)
    check(taught, tmp_path)
    with pytest.raises(UserError, match=r"w\.pth .* does not fit the backbone: .* mismatched"):
        check(init, tmp_path)
    path.write_text("an error page of a web server")
    for config in (init, taught):
        with pytest.raises(UserError, match=r"w\.pth is not a checkpoint that can be read safely"):
            check(config, tmp_path)


def test_a_student_takes_part_of_a_backbone_only_where_the_config_says_so(
    tiny: Make, place: Make, tmp_path: Path
) -> None:
    path = save(tmp_path / "w.pth", "segformer_tiny", 19, without=("norm4",))
    data = open_data(tiny(), place())
    with pytest.raises(UserError, match=r"2 missing \(norm4.weight, norm4.bias\)"):
        build_distilled(tiny({}, {"student.init": str(path)}), None, data)
    student = build_distilled(tiny({}, {"student.init": str(path), "student.partial": True}), None, data).student
    state = checkpoint.load(path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in student.state_dict().items() if name[0] in "pb")
