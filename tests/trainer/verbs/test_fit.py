"""fit: what a run says and leaves in its folder, and what --set changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config import TrainConfig, parse, read_yaml

Make = Callable[..., Any]


@pytest.mark.slow
def test_fit_trains_and_says_how_it_went(written: Make, command: Make, tmp_path: Path, tiny: Make) -> None:
    out = tmp_path / "run"
    config = written({"csf": {}, "pea": {}})
    arguments = ("fit", config, "--out", out, "--set", "optim.lr=0.002", "--set", "seed=3", "--micro-batch", "2")
    code, said, errors = command(*arguments)
    assert (code, errors) == (0, "")
    result = json.loads((out / "result.json").read_text())
    lines = said.strip().splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert all("csf " in line and "pea " in line and "mIoU" in line for line in lines[:2])
    assert f"run {result['run_id']}: val mIoU {result['last']['val/miou']:.2f} at the last epoch" in lines[-1]
    stored: TrainConfig = parse(read_yaml(out / "config.yaml"))
    assert stored == tiny({"csf": {}, "pea": {}}, {"optim.lr": 0.002, "seed": 3})

    before = (out / "last.pt").stat().st_mtime_ns
    code, said, errors = command(*arguments)
    assert (code, errors) == (0, "")
    assert f"run {result['run_id']}: " in said
    assert (out / "last.pt").stat().st_mtime_ns == before


@pytest.mark.slow
def test_set_reads_yaml_and_removes_a_path(written: Make, command: Make, tmp_path: Path, tiny: Make) -> None:
    config = written({"csf": {}, "pea": {}}, {"optim.epochs": 1})
    options = "distill.pea.options={stage_weights: [0, 0, 0, 1]}"
    code, _, errors = command("fit", config, "--out", tmp_path / "run", "--set", options, "--set", "distill.csf=null")
    assert (code, errors) == (0, "")
    expected = tiny({"pea": {"options": {"stage_weights": [0, 0, 0, 1]}}}, {"optim.epochs": 1})
    assert parse(read_yaml(tmp_path / "run" / "config.yaml")) == expected
