"""A committed loss curve: numbers that move, move in a reviewed line and with NUMERICS_VERSION.

When a change is meant to move the numbers: raise NUMERICS_VERSION in trainer/config/__init__.py, then write the new
curve with `python tests/trainer/training/test_golden_curve.py`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch

from trainer.config import NUMERICS_VERSION, ModelConfig, parse
from trainer.files import checkpoint
from trainer.models import build_model
from trainer.place import Place
from trainer.rng import initialising
from trainer.training.loop import fit

CURVE = Path(__file__).parents[2] / "golden" / "curve.json"
LOSSES = ("loss", "loss/ce", "loss/csf", "loss/pea_ea")
REMEDY = (
    "the numbers of an unchanged config have moved. If that is meant, raise NUMERICS_VERSION in "
    "trainer/config/__init__.py and run `python tests/trainer/training/test_golden_curve.py`; if not, find out why"
)


def train(folder: Path) -> list[dict[str, float]]:
    """The losses of each epoch of TransKD-EA on synthetic scenes, from a teacher that knows nothing."""
    with initialising(0, "golden teacher"):
        teacher = build_model(ModelConfig(name="segformer_mini"), 19)
    checkpoint.save(folder / "teacher.pt", {"model": teacher.state_dict()})
    config = parse(
        {
            "data": {"size": [64, 128], "options": {"train": 16, "val": 1, "size": [64, 128]}, "class_weights": "auto"},
            "student": {"name": "segformer_tiny"},
            "teacher": {"name": "segformer_mini", "checkpoint": str(folder / "teacher.pt")},
            "optim": {"lr": 1.0e-3, "epochs": 2, "global_batch": 4, "norm_batch": 2},
            "distill": {"csf": {}, "pea_ea": {}},
        }
    )
    epochs: list[dict[str, float]] = []
    place = Place(out_dir=folder / "run", cache_dir=folder / "cache", device="cpu", threads=1)
    fit(config, place, report=lambda metrics, _: epochs.append({name: metrics[name] for name in LOSSES}))
    return epochs


@pytest.mark.slow
def test_the_loss_curve_is_the_committed_one(tmp_path: Path) -> None:
    golden = json.loads(CURVE.read_text())
    assert golden["numerics"] == NUMERICS_VERSION, "NUMERICS_VERSION was raised: write the curve that belongs to it"
    curve = train(tmp_path)
    assert len(curve) == len(golden["epochs"])
    for epoch, (ours, committed) in enumerate(zip(curve, golden["epochs"], strict=True), start=1):
        # instruction sets from SSE4 to AVX-512 differ by 1e-7
        assert ours == pytest.approx(committed, rel=1e-5), f"epoch {epoch}: {REMEDY}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        CURVE.write_text(json.dumps({"numerics": NUMERICS_VERSION, "epochs": train(Path(scratch))}, indent=1) + "\n")
