"""Several processes of one run compute what one does: two equal two micro-batches bit for bit, through fit() itself,
and groups of BatchNorm that are split over several give the same losses and gradients.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer import parallel
from trainer.config import TrainConfig
from trainer.data.stream import Stream, to_batch
from trainer.distill import DISTILLERS
from trainer.files import checkpoint
from trainer.place import Place
from trainer.training.build import build_distilled, build_teacher, open_data
from trainer.training.loop import fit

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
EPOCHS = 2

# every entry of the registry beside csf, and the published form of csf
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    **{name: {"csf": {}, name: {"weight": 0.7}} for name in DISTILLERS},
    "csf as published": {"csf": {"options": {"norm": "reference"}}},
    "steps and windows": {"csf": {}},
}
OF_CASE: dict[str, dict[str, Any]] = {
    "steps and windows": {
        "data.augment": ["scale", {"crop": {"size": [64, 96], "cat_max_ratio": 0.75}}, "flip", "photometric", "shift"],
        "eval": {"inference": "slide", "window": [64, 64], "stride": [64, 32], "flip": True},
    }
}

CHANGES = {"optim.epochs": EPOCHS, "data.class_weights": "auto", "optim.schedule": "reference"}

SPLIT: dict[str, Any] = {"distill": {"csf": {}, "cirkd": {}, "dist": {}}, "changes": {"optim.norm_batch": 4}}

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
    return {name: tiny(distill, CHANGES | OF_CASE.get(name, {})) for name, distill in CASES.items()}


def stop(metrics: dict[str, float], checkpoint: Path | None) -> bool:
    """As where a run's process is ended after its first epoch."""
    raise InterruptedError


@pytest.fixture(scope="module")
def two(
    tiny: Make,
    configs: dict[str, TrainConfig],
    in_workers: Callable[..., None],
    scenes_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What two workers leave of every case, of one stopped after an epoch, of one that a single worker has begun, and
    of two that cannot be run."""
    root = tmp_path_factory.mktemp("two")
    runs: dict[str, tuple[TrainConfig, int | None]] = {name: (config, None) for name, config in configs.items()}
    runs["stopped"] = (configs["pea_ea"], 1)
    runs["begun"] = (configs["pea_ea"], None)
    with contextlib.suppress(InterruptedError):
        place = Place(out_dir=root / "begun", cache_dir=scenes_cache, device="cpu", micro_batch=2)
        fit(configs["pea_ea"], place, report=stop)
    runs["diverging"] = (tiny({"pea": {}}, {"optim.lr": 1e30}), None)
    runs["split"] = (tiny(**SPLIT), None)
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


def test_one_worker_stopped_and_resumed_by_two(one: dict[str, Path], two: Path) -> None:
    """So that a run may have more workers when more machines come."""
    assert_equal_runs(one["pea_ea"], two / "begun")


def test_every_worker_learns_why_a_run_failed(two: Path) -> None:
    first, second = ((two / f"diverging {rank}").read_text() for rank in (0, 1))
    assert first == second
    assert re.fullmatch(r"loss/\w+ is not finite at step \d+", first)
    assert not (two / "diverging" / "result.json").exists()


def first_step(config: TrainConfig, cache: Path) -> dict[str, torch.Tensor]:
    """In float64, of the first step: this worker's part of each loss, and the gradients and BatchNorm sums of all."""
    place = Place(out_dir=cache, cache_dir=cache, device="cpu")
    data = open_data(config, place)
    teacher = build_teacher(config, place, len(data.classes))
    distilled = build_distilled(config, teacher, data).double().train()
    stream = Stream(data.train, config, data.learn, parallel.rank(), parallel.world())
    batch = to_batch(next(stream.epoch(0)), "cpu", config.data.normalize)
    batch = batch._replace(image=batch.image.double())
    output = teacher.double().eval()(batch.image, None, distilled.teacher_needs) if teacher else None
    sums = distilled(batch, output)
    torch.stack(list(sums.values())).sum().backward()
    found = {f"loss {name}": loss.detach() for name, loss in sums.items()}
    for name, parameter in distilled.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            found[f"gradient {name}"] = parameter.grad
    found |= {f"sums {name}": buffer for name, buffer in distilled.named_buffers() if name.endswith("pending")}
    return {name: parallel.all_reduce(tensor.clone()) for name, tensor in found.items()}


def test_a_run_of_two_workers_whose_groups_are_split_is_the_run_of_one(
    tiny: Make, two: Path, place: Callable[..., Place]
) -> None:
    fit(tiny(**SPLIT), place(), report=lambda *_: None)
    ours, theirs = (json.loads((folder / "result.json").read_text()) for folder in (place().out_dir, two / "split"))
    assert ours["run_id"] == theirs["run_id"] and (ours["micro_batch"], theirs["micro_batch"]) == (4, 2)
    first, other = ours["last"], theirs["last"]
    assert len(losses := [name for name in first if name.startswith("loss")]) == 5
    assert [other[name] for name in losses] == pytest.approx([first[name] for name in losses], rel=1e-3)


FIRST_STEP = """
from pathlib import Path
from tests.trainer.training.test_parallel import first_step
from trainer.config import parse

found = {name: first_step(parse(config), Path(job["cache"])) for name, config in job["configs"].items()}
if rank == 0:
    torch.save(found, job["file"])
"""


def test_groups_that_are_split_over_workers_give_the_same_losses_and_gradients(
    tiny: Make, in_workers: Callable[..., None], scenes_cache: Path, tmp_path: Path
) -> None:
    """Two groups of three samples over three workers: of the second worker one sample is in each."""
    groups = {"optim.global_batch": 6, "optim.norm_batch": 3}
    configs = {name: tiny(distill, CHANGES | groups) for name, distill in CASES.items()}
    job = {name: config.model_dump(mode="json") for name, config in configs.items()}
    in_workers(FIRST_STEP, {"configs": job, "cache": str(scenes_cache), "file": str(tmp_path / "found.pt")}, 3)
    found = torch.load(tmp_path / "found.pt")
    for case, config in configs.items():
        whole = first_step(config, scenes_cache)
        assert list(found[case]) == list(whole)
        for name, tensor in whole.items():
            torch.testing.assert_close(found[case][name], tensor, rtol=1e-9, atol=1e-9, msg=f"{case}: {name}")
        assert all(tensor.any() for name, tensor in whole.items() if name.startswith(("loss", "sums"))), case


def test_a_process_alone_is_a_world_of_one() -> None:
    assert (parallel.rank(), parallel.world(), parallel.joined()) == (0, 1, False)
    tensor = torch.tensor([3])
    assert parallel.all_reduce(tensor) is tensor and tensor.item() == 3
    parallel.barrier()
