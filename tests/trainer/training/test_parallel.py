"""Two processes of one run equal one process that accumulates two micro-batches, bit for bit, through fit() itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.config import TrainConfig
from trainer.distill import DISTILLERS
from trainer.files import checkpoint
from trainer.place import Place
from trainer import parallel
from trainer.training.loop import fit

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
EPOCHS = 2

# every entry of the registry beside csf, and the published form of csf
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    **{name: {"csf": {}, name: {"weight": 0.7}} for name in DISTILLERS},
    "csf as published": {"csf": {"options": {"norm": "reference"}}},
}

CHANGES = {"optim.epochs": EPOCHS, "data.class_weights": "auto", "optim.schedule": "reference"}

FIT = """
from pathlib import Path
from trainer.config import NumericalError, UserError, parse
from trainer.training.loop import fit
from trainer.place import Place

for name, (config, stop) in job["runs"].items():
    out = Path(job["root"]) / name

    def report(metrics, checkpoint):
        if metrics["epoch"] == stop:
            raise InterruptedError

    try:
        fit(parse(config), Place(out_dir=out, cache_dir=Path(job["cache"]), device="cpu"), report=report)
    except InterruptedError:
        pass
    except (NumericalError, UserError) as error:
        out.with_name(f"{name} {rank}").write_text(str(error))
"""


@pytest.fixture(scope="module")
def configs(tiny: Make) -> dict[str, TrainConfig]:
    return {name: tiny(distill, CHANGES) for name, distill in CASES.items()}


@pytest.fixture(scope="module")
def two(
    tiny: Make,
    configs: dict[str, TrainConfig],
    in_workers: Callable[..., None],
    scenes_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What two workers leave of every case, of one that is stopped after an epoch, and of two that cannot be run."""
    root = tmp_path_factory.mktemp("two")
    runs: dict[str, tuple[TrainConfig, int | None]] = {name: (config, None) for name, config in configs.items()}
    runs["stopped"] = (configs["pea_ea"], 1)
    runs["diverging"] = (tiny({"pea": {}}, {"optim.lr": 1e30}), None)
    runs["cut"] = (tiny({}, {"optim.norm_batch": 4}), None)
    plain = {name: (config.model_dump(mode="json"), stop) for name, (config, stop) in runs.items()}
    in_workers(FIT, {"runs": plain, "root": str(root), "cache": str(scenes_cache)})
    return root


@pytest.fixture(scope="module")
def one(
    configs: dict[str, TrainConfig], scenes_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The folder of every case, run by one worker with micro-batches of their size."""
    root = tmp_path_factory.mktemp("one")
    for name, config in configs.items():
        place = Place(out_dir=root / name, cache_dir=scenes_cache, device="cpu", micro_batch=2)
        fit(config, place, report=lambda *_: None)
    return {name: root / name for name in configs}


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
def test_two_workers_equal_two_micro_batches(case: str, one: dict[str, Path], two: Path) -> None:
    assert_equal_runs(one[case], two / case)


def test_one_worker_alone_writes_the_record(one: dict[str, Path], two: Path) -> None:
    assert {path.name for path in (two / "pea").iterdir()} == {path.name for path in one["pea"].iterdir()}
    assert len((two / "pea" / "epochs.jsonl").read_text().splitlines()) == EPOCHS
    result = json.loads((two / "pea" / "result.json").read_text())
    assert result["environment"]["workers"] == 2
    assert result["images_per_step"] == 4


def test_two_workers_stopped_and_resumed_by_one(
    configs: dict[str, TrainConfig], one: dict[str, Path], two: Path, scenes_cache: Path
) -> None:
    """The checkpoint of two workers is the checkpoint of one: what is lost may come back on another machine."""
    assert not (two / "stopped" / "result.json").exists()
    assert len((two / "stopped" / "epochs.jsonl").read_text().splitlines()) == 1
    place = Place(out_dir=two / "stopped", cache_dir=scenes_cache, device="cpu", micro_batch=2)
    fit(configs["pea_ea"], place, report=lambda *_: None)
    assert_equal_runs(one["pea_ea"], two / "stopped")


def test_every_worker_learns_why_a_run_failed(two: Path) -> None:
    first, second = ((two / f"diverging {rank}").read_text() for rank in (0, 1))
    assert first == second
    assert re.fullmatch(r"loss/\w+ is not finite at step \d+", first)
    assert not (two / "diverging" / "result.json").exists()


def test_workers_that_would_cut_a_group_are_refused_before_anything_is_written(two: Path) -> None:
    for rank in (0, 1):
        said = (two / f"cut {rank}").read_text()
        assert "a forward pass of 2 samples (2 workers, global_batch 4) must hold whole BatchNorm groups of 4" in said
    assert not (two / "cut").exists()


def test_a_process_alone_is_a_world_of_one() -> None:
    assert (parallel.rank(), parallel.world(), parallel.joined()) == (0, 1, False)
    tensor = torch.tensor([3])
    assert parallel.all_reduce(tensor) is tensor and tensor.item() == 3
    parallel.barrier()
