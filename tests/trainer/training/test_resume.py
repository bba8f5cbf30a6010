"""A run that is stopped and started again equals the one that never was, bit for bit, wherever it was stopped."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.config import TrainConfig
from trainer.files import checkpoint, generations, run_folder
from trainer.files.run_folder import CLOCK
from trainer.place import Place
from trainer.training.loop import fit

Make = Callable[..., Any]
DISTILL = {"csf": {"options": {"norm": "reference"}}, "pea_ea": {}}
EPOCHS = 3


def nothing(metrics: dict[str, float], path: Path | None) -> None:
    """A report that nobody reads."""


def without_clock(epochs: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in epoch.items() if not name.startswith(CLOCK)} for epoch in epochs]


def assert_same_run(out: Path, undisturbed: Path) -> None:
    """Weights, statistics, optimiser, record and result; everything but the clock."""
    ours, theirs = (checkpoint.load(folder / "last.pt") for folder in (out, undisturbed))
    assert list(ours["model"]) == list(theirs["model"])
    for name, tensor in theirs["model"].items():
        assert torch.equal(ours["model"][name], tensor), name
    for index, state in theirs["optimiser"]["state"].items():
        for name, tensor in state.items():
            assert torch.equal(ours["optimiser"]["state"][index][name], tensor), (index, name)
    lines = (out / "epochs.jsonl").read_text().splitlines()
    assert without_clock([json.loads(line) for line in lines]) == without_clock(theirs["history"])
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (out, undisturbed))
    for result in (first, second):
        result["last"] = without_clock([result["last"]])
        del result["seconds"], result["complexity"]["latency_ms"]
    assert first == second
    best, other = (checkpoint.load(folder / "best.pt")["model"] for folder in (out, undisturbed))
    assert all(torch.equal(best[name], tensor) for name, tensor in other.items())
    assert (out / "panel.png").read_bytes() == (undisturbed / "panel.png").read_bytes()


@pytest.fixture(scope="module")
def config(tiny: Make) -> TrainConfig:
    return tiny(DISTILL, {"optim.epochs": EPOCHS})


@pytest.fixture(scope="module")
def undisturbed(config: TrainConfig, scenes_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    fit(config, Place(out_dir=out, cache_dir=scenes_cache, device="cpu"), report=nothing)
    return out


@pytest.mark.slow
def test_two_undisturbed_runs_are_equal(config: TrainConfig, undisturbed: Path, place: Make) -> None:
    fit(config, place(), report=nothing)
    assert_same_run(place().out_dir, undisturbed)


@pytest.mark.slow
def test_stopped_after_every_epoch(config: TrainConfig, undisturbed: Path, place: Make) -> None:
    reported = []

    def stop(metrics: dict[str, float], path: Path | None) -> None:
        reported.append(metrics["epoch"])
        raise InterruptedError

    for _ in range(EPOCHS):
        with pytest.raises(InterruptedError):
            fit(config, place(), report=stop)
    assert reported == [1, 2, 3]
    assert not (place().out_dir / "result.json").exists()
    fit(config, place(), report=nothing)  # nothing is left to train: it writes the result
    assert_same_run(place().out_dir, undisturbed)


@pytest.mark.slow
def test_stopped_at_every_write(
    config: TrainConfig, undisturbed: Path, place: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt dies at one more of its writes than the last: every file is old or new, never half."""
    sync = os.fsync
    for attempt in range(1, 20):
        calls = 0

        def dying(handle: int, attempt: int = attempt) -> None:
            nonlocal calls
            calls += 1
            if calls == attempt:
                raise InterruptedError
            sync(handle)

        monkeypatch.setattr(os, "fsync", dying)
        try:
            fit(config, place(), report=nothing)
            break
        except InterruptedError:
            assert not (place().out_dir / "result.json").exists()
    else:
        pytest.fail("no attempt came to its end")
    assert attempt > EPOCHS
    assert_same_run(place().out_dir, undisturbed)


@pytest.mark.slow
def test_a_half_written_line_is_repaired(config: TrainConfig, undisturbed: Path, place: Make) -> None:
    def stop(metrics: dict[str, float], path: Path | None) -> None:
        if metrics["epoch"] == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(config, place(), report=stop)
    record = place().out_dir / "epochs.jsonl"
    record.write_text(record.read_text()[:-30])
    fit(config, place(), report=nothing)
    assert_same_run(place().out_dir, undisturbed)


DYING = """
import json, os, signal, sys
from pathlib import Path
import trainer.training.loop as loop
from trainer.config import parse
from trainer.place import Place

config, out, cache, last_step = parse(json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
train_step, steps = loop.train_step, 0

def dying(*arguments):
    global steps
    steps += 1
    train_step(*arguments)
    if steps == last_step:
        os.kill(os.getpid(), signal.SIGKILL)

loop.train_step = dying
loop.fit(config, Place(out_dir=out, cache_dir=cache, device="cpu"), report=lambda *_: None)
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_epochs(config: TrainConfig, undisturbed: Path, place: Make) -> None:
    """SIGKILL in the first epoch's third step, then in the second step of the second epoch it reaches."""
    out = place().out_dir
    for last_step, epochs in ((3, 0), (6, 1), (6, 2)):
        arguments = [json.dumps(config.model_dump(mode="json")), str(out), str(place().cache_dir), str(last_step)]
        done = subprocess.run([sys.executable, "-c", DYING, *arguments], capture_output=True, text=True, timeout=300)
        assert done.returncode == -signal.SIGKILL, done.stderr
        record = out / "epochs.jsonl"
        assert (len(record.read_text().splitlines()) if record.exists() else 0) == epochs
    fit(config, place(), report=nothing)
    assert_same_run(out, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 2])
def test_fewer_checkpoints_repeat_epochs_exactly(
    stop_after: int, config: TrainConfig, undisturbed: Path, place: Make
) -> None:
    """A checkpoint after every second epoch: what was reported after the last one is trained and reported again."""
    reported: list[float] = []

    def stop(metrics: dict[str, float], path: Path | None) -> None:
        reported.append(metrics["epoch"])
        if len(reported) == stop_after:
            raise InterruptedError

    sparse = place(checkpoint_every=2)
    with pytest.raises(InterruptedError):
        fit(config, sparse, report=stop)
    assert (sparse.out_dir / "last.pt").exists() == (stop_after == 2)
    assert [epoch["epoch"] for epoch in run_folder.read_epochs(sparse.out_dir)] == reported
    fit(config, sparse, report=lambda metrics, path: reported.append(metrics["epoch"]))
    assert reported == {1: [1, 1, 2, 3], 2: [1, 2, 3]}[stop_after]
    assert_same_run(sparse.out_dir, undisturbed)


def test_checkpoints_are_as_many_as_asked(tiny: Make, place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    save = generations.save

    def counting(out: Path, state: dict[str, Any]) -> None:
        written.append([epoch["epoch"] for epoch in state["history"]])
        save(out, state)

    monkeypatch.setattr(generations, "save", counting)
    sparse = place(checkpoint_every=3)
    fit(tiny({}, {"optim.epochs": 5}), sparse, report=nothing)
    assert written == [[1, 2, 3], [1, 2, 3, 4, 5]]
    best = checkpoint.load(sparse.out_dir / "best.pt")
    assert {name: best[name] for name in ("epoch", "val/miou")} == checkpoint.load(sparse.out_dir / "last.pt")["best"]


def test_a_disk_that_is_full_ends_the_run_and_the_epoch_is_not_reported(
    config: TrainConfig, place: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, reported = generations.save, []

    def full(out: Path, state: dict[str, Any]) -> None:
        if len(state["history"]) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(out, state)

    monkeypatch.setattr(generations, "save", full)
    with pytest.raises(OSError, match="No space left"):
        fit(config, place(), report=lambda metrics, path: reported.append(metrics["epoch"]))
    assert reported == [1]
    assert [epoch["epoch"] for epoch in run_folder.read_epochs(place().out_dir)] == [1]
    assert len(checkpoint.load(place().out_dir / "last.pt")["history"]) == 1
