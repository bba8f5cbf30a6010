"""What a finished run is known by: a moved data set or more workers reuse it; numerics, a pixel or a weight do not."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ablations.study.schema import read
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.runs_left import arms_due, count_left
from orchestrator.store.folder import Store
from trainer.config import parse
from trainer.data.scenes import write_scenes
from trainer.models import build_model
from trainer.training import sources

STUDY = """
name: NAME
base:
  data: {name: cityscapes, size: [64, 128]}
  student: {name: segformer_tiny, init: INIT}
  optim: {epochs: 1, global_batch: 2, norm_batch: 1}
variants: {student alone: {}}
"""


class Lab:
    """A data set, weights, and a store in which the study's only run has finished."""

    def __init__(self, folder, root):
        self.data, self.weights = folder / "data", folder / "backbone.pt"
        write_scenes(self.data, train=2, val=1, seed=0, size=(64, 128))
        student = build_model(parse({"student": {"name": "segformer_tiny"}}).student, 19)
        torch.save({"model": student.state_dict()}, self.weights)
        self.store = Store(root)
        launch = self.launch()
        (run,) = arms_due(launch.state)
        launch.ledger.append(launch.job(run).event("finished", last={"epoch": 1.0, "val/miou": 1.0}))

    def launch(self, name="one", workers=1):
        """The study, prepared."""
        text = STUDY.replace("NAME", name).replace("INIT", str(self.weights))
        spec = ClusterSpec(workers=workers, cpus_per_worker=0.5)
        launch = Launch(read(text, name), spec, self.store, {"cityscapes": self.data})
        launch.prepare(lambda text: None)
        return launch


@pytest.fixture
def lab(tmp_path, cached):
    return Lab(tmp_path, cached(tmp_path / "store"))


def nothing(lab, monkeypatch):
    """As it was."""


def moved(lab, monkeypatch):
    lab.data = lab.data.rename(lab.data.with_name("elsewhere"))


def copied(lab, monkeypatch):
    lab.data = shutil.copytree(lab.data, lab.data.with_name("copy"))


def numerics(lab, monkeypatch):
    monkeypatch.setattr(sources, "NUMERICS_VERSION", sources.NUMERICS_VERSION + 1)


def pixel(lab, monkeypatch):
    path = sorted((lab.data / "leftImg8bit" / "val").rglob("*.png"))[0]
    image = np.array(Image.open(path))
    image[0, 0, 0] ^= 1
    Image.fromarray(image).save(path)


def weight(lab, monkeypatch):
    state = torch.load(lab.weights, weights_only=True)
    state["model"]["patch_embed1.proj.bias"][0] += 1
    torch.save(state, lab.weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "study", "left"),
    [
        (nothing, {}, 0),
        (nothing, {"name": "another"}, 0),
        (nothing, {"workers": 2}, 0),
        (moved, {}, 0),
        (copied, {}, 0),
        (numerics, {}, 1),
        (pixel, {}, 1),
        (weight, {}, 1),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_run_is_known_by_what_it_computes(lab, monkeypatch, change, study, left):
    change(lab, monkeypatch)
    assert count_left(lab.launch(**study).state) == left
