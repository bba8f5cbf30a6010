"""fit --continue: a run goes on from one of fewer epochs, and is refused where the numbers would not be its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from trainer.files import checkpoint

Make = Callable[..., Any]


@pytest.mark.slow
def test_epochs_are_raised_by_a_run_that_goes_on_from_the_shorter_one(
    written: Make, command: Make, tmp_path: Path
) -> None:
    """The result is that of a run which trains all epochs itself."""
    short, long, whole = (tmp_path / name for name in ("short", "long", "whole"))

    def fit(epochs: int, out: Path, *options: str | Path) -> tuple[int, str, str]:
        return command(
            "fit", written({"pea": {}}, {"optim.schedule": "reference", "optim.epochs": epochs}), "--out", out, *options
        )

    assert fit(1, short)[0] == 0
    before = {path: path.read_bytes() for path in short.iterdir()}
    code, _, errors = fit(2, short)
    assert code == 2
    assert f"; choose another folder; to go on with its epochs there, add --continue {short}" in errors
    code, said, errors = fit(2, long, "--continue", short)
    assert (code, errors) == (0, "")
    assert "epoch 1/2" not in said and "epoch 2/2" in said
    assert fit(2, whole)[0] == 0
    ours, theirs = (checkpoint.load(out / "last.pt") for out in (long, whole))
    assert ours["run_id"] == theirs["run_id"]
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())
    assert "1 epoch taken over from run" in (long / "notes.txt").read_text()
    assert fit(2, long, "--continue", short)[0] == 0
    assert {path: path.read_bytes() for path in short.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optim.schedule": "to_end", "optim.epochs": 3},
            "with schedule to_end all learning rates depend on optim.epochs",
        ),
        ({"optim.epochs": 3, "optim.lr": 0.5}, "only optim.epochs may differ, and must be higher here (optim.lr is"),
        (
            {"optim.epochs": 1},
            "only optim.epochs may differ, and must be higher here (optim.epochs is 2 there and 1 here)",
        ),
        ({}, "(the configs are equal)"),
        ({"optim.epochs": 3}, "no such checkpoint"),
    ],
)
def test_what_cannot_go_on_is_refused(
    changes: dict[str, Any], message: str, recipe: Make, written: Make, command: Make, tmp_path: Path
) -> None:
    stored = tmp_path / "short"
    stored.mkdir()
    (stored / "config.yaml").write_text(yaml.safe_dump(recipe({}, {"optim.schedule": "reference"})))
    config = written({}, {"optim.schedule": "reference", **changes})
    code, said, errors = command("fit", config, "--out", tmp_path / "new", "--continue", stored)
    assert (code, said, len(errors.splitlines())) == (2, "", 1)
    assert message in errors
    assert not (tmp_path / "new").exists()
