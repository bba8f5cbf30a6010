"""fit with several configs: they train side by side, each as it would alone, or say why they cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainer.files import checkpoint

Make = Callable[..., Any]


@pytest.fixture
def arms(recipe: Make, tmp_path: Path) -> Callable[..., list[Path]]:
    """arms(one={"pea": {}}, two=({}, {"seed": 1})) -> a YAML file of each."""

    def write(**asked: Any) -> list[Path]:
        for name, arm in asked.items():
            data = recipe(*arm) if isinstance(arm, tuple) else recipe(arm)
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data))
        return [tmp_path / f"{name}.yaml" for name in asked]

    return write


@pytest.mark.slow
def test_several_configs_train_side_by_side(arms: Make, command: Make, tmp_path: Path) -> None:
    configs = arms(plain={}, taught={"csf": {}}, short=({"pea": {}}, {"optim.epochs": 1}))
    code, said, errors = command("fit", *configs, "--out", tmp_path / "runs", "--set", "optim.lr=0.002")
    assert (code, errors) == (0, "")
    lines = [line for line in said.splitlines() if "  epoch " in line]
    found = [line.split()[:3] for line in lines]  # runs may be told of in any order
    for name, epochs in (("plain", 2), ("taught", 2), ("short", 1)):
        assert [words for words in found if words[0] == name] == [
            [name, "epoch", f"{epoch}/{epochs}"] for epoch in range(1, epochs + 1)
        ]
    assert len(found) == 5
    for name in ("plain", "taught", "short"):
        result = json.loads((tmp_path / "runs" / name / "result.json").read_text())
        assert result["environment"]["cohort"] == 3
        assert f"{name}, run {result['run_id']}: val mIoU {result['last']['val/miou']:.2f} at the last epoch" in said
        assert not (tmp_path / "runs" / name / ".lock").exists()
    assert command("fit", configs[1], "--out", tmp_path / "one", "--set", "optim.lr=0.002")[0] == 0
    ours, theirs = (checkpoint.load(tmp_path / out / "last.pt") for out in ("runs/taught", "one"))
    assert ours["final_weights"] == theirs["final_weights"]


@pytest.mark.slow
def test_one_of_several_that_fails_is_one_line_and_the_others_finish(arms: Make, command: Make, tmp_path: Path) -> None:
    configs = arms(good={"pea": {}}, diverging=({"pea": {}}, {"optim.lr": 1e30}))
    code, said, errors = command("fit", *configs, "--out", tmp_path / "runs")
    assert code == 1
    assert errors.startswith("diverging failed: loss/") and "is not finite at step" in errors
    assert len(errors.splitlines()) == 1
    assert "good, run " in said and "diverging, run" not in said
    assert (tmp_path / "runs" / "good" / "result.json").exists()
    configs = arms(good={"pea": {}}, stated=({"csf": {}}, {"teacher.miou": 99.0}))
    code, said, errors = command("fit", *configs, "--out", tmp_path / "runs")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "stated failed: teacher" in errors and "states 99.00 mIoU but reaches" in errors


def test_several_configs_that_cannot_train_side_by_side(arms: Make, command: Make, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, seed, groups = arms(
        one={"pea": {}}, seed=({"pea": {}}, {"seed": 1}), groups=({}, {"optim.lr": 2.0, "optim.norm_batch": 4})
    )
    shutil.copy(one, tmp_path / "other" / "one.yaml")
    (tmp_path / "bad.yaml").write_text("optim: {lr: -1}\n")
    for arguments, told in (
        ((one, seed), f"{seed} cannot train side by side with {one}, for seed is 1 there and 0 in {one}; train it by"),
        ((one, tmp_path / "other" / "one.yaml"), "would both train in the folder one below --out; rename one"),
        ((one, one), "would both train in the folder one below --out; rename one"),
        ((one, groups, "--micro-batch", "2"), f"{groups}: micro_batch 2 would split BatchNorm groups of 4"),
        ((one, tmp_path / "bad.yaml"), f"{tmp_path / 'bad.yaml'}: optim.lr: Input should be greater than 0"),
        ((one, groups, "--continue", tmp_path / "run"), "--continue is for one run but got 2 configs; give one"),
    ):
        code, said, errors = command("fit", *arguments, "--out", tmp_path / "runs")
        assert (code, said, len(errors.splitlines())) == (2, "", 1)
        assert told in errors
        assert not (tmp_path / "runs").exists()
