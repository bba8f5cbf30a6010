"""Runs side by side in two workers: each is what it is alone, and both workers agree on which have failed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.trainer.training.cohorts import Side, arms

pytestmark = pytest.mark.slow

Make = Callable[..., Any]

WORKERS = """
from pathlib import Path
from trainer.config import parse
from trainer.place import Place
from trainer.training.loop import fit_together
from trainer.training.member import Run

root, told, runs = Path(job["root"]), {}, []
for name, config in job["configs"].items():
    place = Place(out_dir=root / name, cache_dir=Path(job["cache"]), device="cpu")
    ended = lambda error, name=name: told.update({name: repr(error)})
    stop = lambda metrics, path, name=name: name == "stopped" and rank == 1
    runs.append(Run(parse(config), place, stop, ended))
if rank == 1:  # weights that only one machine lacks
    init = runs[-1].config.student.model_copy(update={"init": str(root / "none.pt")})
    runs[-1] = Run(runs[-1].config.model_copy(update={"student": init}), *list(vars(runs[-1]).values())[1:])
fit_together(runs)
(root / f"told {rank}").write_text(json.dumps(told))
"""


def test_two_workers(tiny: Make, in_workers: Make, side: Side, alone: Make) -> None:
    """Each member has its own DDP; a failure is agreed on, whichever worker saw it, and the others go on."""
    configs = arms(tiny, {"optim.epochs": 2, "eval.every": 1, "optim.norm_batch": 2})
    more = {
        "diverging": tiny({"pea": {}}, {"optim.lr": 1e30}),
        "stopped": tiny({"pea": {}}, {"optim.lr": 2e-3}),
        "weights": tiny({}, {"optim.lr": 3e-3}),
    }
    plain = {name: config.model_dump(mode="json") for name, config in (configs | more).items()}
    in_workers(WORKERS, {"configs": plain, "root": str(side.root), "cache": str(side.cache)})
    first, second = (json.loads((side.root / f"told {rank}").read_text()) for rank in (0, 1))
    assert first == second
    assert first.pop("diverging").startswith("NumericalError('loss")
    assert "cannot read the weights" in first.pop("weights")
    assert first == dict.fromkeys([*configs, "stopped"], "None")
    assert not (side.root / "stopped" / "result.json").exists()
    for name, config in configs.items():
        ours, theirs = (
            torch.load(folder / "last.pt", weights_only=True)["model"]
            for folder in (side.root / name, alone(config, micro_batch=2))
        )
        assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())
