"""Images of five channels in arrays, from training to ONNX: scaled by their own mean and deviation everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from trainer.config import Scale, UserError, parse
from trainer.data.stream import normalise
from trainer.files import run_folder
from trainer.training.teacher import rescale

Make = Callable[..., Any]
SCALE = {"mean": [0.1, 0.2, 0.3, 0.4, 0.5], "std": [0.1, 0.2, 0.1, 0.2, 0.3]}


def section() -> dict[str, Any]:
    options = {
        "classes": {"0": "left", "1000": "right"},
        "holdout": {"val": 0.3, "test": 0.2},
        "channels": 5,
        "range": [0, 2],
    }
    return {"name": "folder", "size": [32, 64], "normalize": SCALE, "options": options}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten arrays of float32 from 0 to 2, of unequal sizes, with masks of 16 bits."""
    root = tmp_path_factory.mktemp("spectral")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for at in range(10):
        label = np.zeros((40 + at, 64), np.uint16)
        label[:, 20 + 2 * at :] = 1000
        image = (label[..., None] / 1000 + rng.random((*label.shape, 5))).astype(np.float32)
        np.save(root / "images" / f"{at}.npy", image)
        Image.fromarray(label).save(root / "masks" / f"{at}.png")
    return root


@pytest.mark.slow
def test_from_training_to_onnx(root: Path, command: Make, tmp_path: Path) -> None:
    config = {
        "data": section() | {"augment": ["scale", {"crop": {"size": [32, 64]}}, "flip", "photometric", "blur"]},
        "student": {"name": "segformer_tiny"},
        "optim": {"lr": 1.0e-3, "epochs": 2, "global_batch": 4},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    run = tmp_path / "run"
    code, said, errors = command("fit", tmp_path / "run.yaml", "--out", run, "--data-root", root, "--device", "cpu")
    assert (code, errors) == (0, ""), errors
    out = tmp_path / "eval.json"
    code, said, errors = command("eval", run / "last.pt", "--data-root", root, "--json", out)
    assert (code, errors) == (0, "")
    last = run_folder.read_epochs(run)[-1]
    metrics = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    assert metrics == {name: value for name, value in last.items() if name.startswith("val/")}
    assert f"normalize mean {SCALE['mean']}, std {SCALE['std']} (from the config)" in said
    code, _, errors = command("predict", run / "last.pt", root / "images", "--out", tmp_path / "pictures")
    assert (code, errors) == (0, "")
    with Image.open(tmp_path / "pictures" / "overlays" / "3.png") as file:
        assert (file.size, file.mode) == ((64, 43), "RGB")
    code, said, errors = command("export", run / "last.pt", "--out", tmp_path / "student.onnx", "--data-root", root)
    assert code == 0, errors
    assert "takes one image of 32x64, uint8 of 5 channels" in said and "the same class at " in said
    with Image.open(run / "panel.png") as file:
        assert file.mode == "RGB"


def test_a_measured_scale_is_minus_the_mean_and_over_the_deviation() -> None:
    image = torch.arange(2 * 5 * 3 * 4, dtype=torch.uint8).view(2, 5, 3, 4)
    mean, std = (torch.tensor(SCALE[name]).view(5, 1, 1) for name in ("mean", "std"))
    scale = Scale.model_validate(SCALE)
    torch.testing.assert_close(normalise(image, scale), (image / 255 - mean) / std)
    other = Scale(mean=(0.5,) * 5, std=(0.25,) * 5)
    torch.testing.assert_close(rescale(normalise(image, scale), scale, other), normalise(image, other))
    torch.testing.assert_close(rescale(normalise(image, scale), scale, "unit"), normalise(image, "unit"))


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ({"mean": [0.1], "std": [0.1, 0.2]}, "mean has 1 channels but std has 2; give one of each"),
        ({"mean": [0.1], "std": [0]}, "data.normalize.std.0: Input should be greater than 0, but got 0"),
        ({"mean": [120], "std": [50]}, "data.normalize.mean.0: Input should be less than or equal to 1, but got 120"),
        ("measured", "data.normalize: Input should be 'unit' or 'imagenet'"),
    ],
)
def test_a_scale_that_is_none(scale: Any, message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse({"data": {**section(), "normalize": scale}})
    assert message in str(refused.value)
