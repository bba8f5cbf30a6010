"""Two processes of one run equal one process that accumulates two micro-batches, bit for bit, through fit() itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer import checkpoint, parallel
from trainer.build import run_id
from trainer.config import TrainConfig
from trainer.distill import DISTILLERS
from trainer.loop import fit
from trainer.place import Place

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
EPOCHS = 2

# every entry of the registry beside csf, and the published form of csf
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    **{name: {"csf": {}, name: {"weight": 0.7}} for name in DISTILLERS},
    "csf as published": {"csf": {"options": {"norm": "reference"}}},
}

FIT = """
from pathlib import Path
from trainer.config import parse
from trainer.loop import fit
from trainer.place import Place

for name, config in job["configs"].items():
    place = Place(out_dir=Path(job["out"]) / name, cache_dir=Path(job["cache"]), device="cpu")
    stop = job["stop"]

    def report(metrics, checkpoint):
        if metrics["epoch"] == stop:
            raise InterruptedError

    try:
        fit(parse(config), place, report=report)
    except InterruptedError:
        pass
"""


def configs(tiny: Make) -> dict[str, TrainConfig]:
    changes = {"optim.epochs": EPOCHS, "data.class_weights": "auto", "optim.schedule": "reference"}
    return {name: tiny(distill, changes) for name, distill in CASES.items()}


@pytest.fixture(scope="module")
def runs(
    tiny: Make, in_workers: Callable[..., None], scenes_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Folders with a run of every case: `two` workers; `one` worker with micro-batches of their size."""
    root = tmp_path_factory.mktemp("parallel")
    job = {"configs": {name: config.model_dump(mode="json") for name, config in configs(tiny).items()}}
    in_workers(FIT, {**job, "out": str(root / "two"), "cache": str(scenes_cache), "stop": None})
    for name, config in configs(tiny).items():
        place = Place(out_dir=root / "one" / name, cache_dir=scenes_cache, device="cpu", micro_batch=2)
        fit(config, place, report=lambda *_: None)
    return {"one": root / "one", "two": root / "two"}


def assert_equal_runs(one: Path, two: Path) -> None:
    ours, theirs = (checkpoint.load(folder / "last.pt") for folder in (one, two))
    assert ours["run_id"] == theirs["run_id"]
    assert list(ours["model"]) == list(theirs["model"])
    for name, tensor in ours["model"].items():
        assert torch.equal(tensor, theirs["model"][name]), name
    for index, state in ours["optimiser"]["state"].items():
        for name, tensor in state.items():
            assert torch.equal(tensor, theirs["optimiser"]["state"][index][name]), (index, name)
    assert len(theirs["history"]) == EPOCHS
    for epoch, other in zip(ours["history"], theirs["history"], strict=True):
        assert set(epoch) == set(other)
        for name in (name for name in epoch if name == "lr" or name.startswith("loss")):
            assert epoch[name] == other[name], name
        # equal weights, but other batches in validation: a pixel between two classes may go either way
        assert epoch["val/miou"] == pytest.approx(other["val/miou"], abs=0.1)


@pytest.mark.parametrize("case", CASES)
def test_two_workers_equal_two_micro_batches(case: str, runs: dict[str, Path]) -> None:
    assert_equal_runs(runs["one"] / case, runs["two"] / case)


@pytest.mark.parametrize("case", ["plain", "pea"])
def test_one_worker_writes_the_record(case: str, runs: dict[str, Path], tiny: Make) -> None:
    out = runs["two"] / case
    assert len((out / "epochs.jsonl").read_text().splitlines()) == EPOCHS
    result = json.loads((out / "result.json").read_text())
    assert result["environment"]["workers"] == 2
    assert result["images_per_step"] == 4
    place = Place(out_dir=out, cache_dir=out.parents[2] / "none", device="cpu")
    assert result["key"] == configs(tiny)[case].key
    assert place.out_dir.name == case
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_two_workers_stopped_and_resumed_by_one(
    runs: dict[str, Path], tiny: Make, in_workers: Callable[..., None], scenes_cache: Path, tmp_path: Path
) -> None:
    """The checkpoint of two workers is the checkpoint of one: what is lost may come back on another machine."""
    config = tiny(
        CASES["pea_ea"], {"optim.epochs": EPOCHS, "data.class_weights": "auto", "optim.schedule": "reference"}
    )
    job = {"configs": {"run": config.model_dump(mode="json")}, "out": str(tmp_path), "cache": str(scenes_cache)}
    in_workers(FIT, {**job, "stop": 1})
    assert not (tmp_path / "run" / "result.json").exists()
    place = Place(out_dir=tmp_path / "run", cache_dir=scenes_cache, device="cpu", micro_batch=2)
    assert run_id(config, place) == checkpoint.load(tmp_path / "run" / "last.pt")["run_id"]
    fit(config, place, report=lambda *_: None)
    assert_equal_runs(runs["one"] / "pea_ea", tmp_path / "run")


def test_a_process_alone_is_a_world_of_one() -> None:
    assert (parallel.rank(), parallel.world(), parallel.joined()) == (0, 1, False)
    tensor = torch.tensor([3])
    assert parallel.all_reduce(tensor) is tensor and tensor.item() == 3
    parallel.barrier()


FAIL = """
from pathlib import Path
from trainer.config import NumericalError, UserError, parse
from trainer.loop import fit
from trainer.place import Place

place = Place(out_dir=Path(job["out"]), cache_dir=Path(job["cache"]), device="cpu", micro_batch=job["micro_batch"])
try:
    fit(parse(job["config"]), place, report=lambda *_: None)
except (NumericalError, UserError) as error:
    Path(job["said"] + str(rank)).write_text(str(error))
"""


def test_every_worker_learns_why_a_run_failed(
    tiny: Make, in_workers: Callable[..., None], scenes_cache: Path, tmp_path: Path
) -> None:
    job = {
        "out": str(tmp_path / "run"),
        "cache": str(scenes_cache),
        "said": str(tmp_path / "said"),
        "micro_batch": None,
    }
    in_workers(FAIL, {**job, "config": tiny({"pea": {}}, {"optim.lr": 1e30}).model_dump(mode="json")})
    said = [(tmp_path / f"said{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert "is not finite at step" in said[0]
    assert not (tmp_path / "run" / "result.json").exists()


def test_workers_that_would_cut_a_group_are_refused_before_anything_is_written(
    tiny: Make, in_workers: Callable[..., None], scenes_cache: Path, tmp_path: Path
) -> None:
    job = {
        "out": str(tmp_path / "run"),
        "cache": str(scenes_cache),
        "said": str(tmp_path / "said"),
        "micro_batch": None,
    }
    in_workers(FAIL, {**job, "config": tiny({}, {"optim.norm_batch": 4}).model_dump(mode="json")})
    for rank in (0, 1):
        said = (tmp_path / f"said{rank}").read_text()
        assert "a forward pass of 2 samples (2 workers, global_batch 4) must hold whole BatchNorm groups of 4" in said
    assert not (tmp_path / "run").exists()
