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

from trainer.config import TrainConfig
from trainer.files import checkpoint, generations, run_folder
from trainer.place import Place
from trainer.training.loop import fit

Make = Callable[..., Any]
DISTILL = {"csf": {"options": {"norm": "reference"}}, "pea_ea": {}}
EPOCHS = 3


def nothing(metrics: dict[str, float], path: Path | None) -> None:
    """A report that nobody reads."""


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
def test_two_undisturbed_runs_are_equal(config: TrainConfig, undisturbed: Path, place: Make, same_run: Make) -> None:
    fit(config, place(), report=nothing)
    same_run(place().out_dir, undisturbed)


@pytest.mark.slow
def test_stopped_after_every_epoch(config: TrainConfig, undisturbed: Path, place: Make, same_run: Make) -> None:
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
    same_run(place().out_dir, undisturbed)


@pytest.mark.slow
def test_stopped_with_steps_and_test_time_views(tiny: Make, place: Make, same_run: Make) -> None:
    """Augmentation is a function of seed, step, epoch and sample: a resumed run sees what it would have seen."""
    steps = ["scale", {"crop": {"size": [64, 96], "cat_max_ratio": 0.75}}, "flip", "photometric", "blur", "shift"]
    config = tiny(DISTILL, {"data.augment": steps, "eval.flip": True, "eval.scales": [0.75, 1.0]})

    def stop(metrics: dict[str, float], path: Path | None) -> None:
        raise InterruptedError

    fit(config, place("whole"), report=nothing)
    for _ in range(config.optim.epochs):
        with pytest.raises(InterruptedError):
            fit(config, place("parts"), report=stop)
    fit(config, place("parts"), report=nothing)
    same_run(place("parts").out_dir, place("whole").out_dir)


@pytest.mark.slow
def test_stopped_at_every_write(
    config: TrainConfig, undisturbed: Path, place: Make, same_run: Make, monkeypatch: pytest.MonkeyPatch
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
    same_run(place().out_dir, undisturbed)


@pytest.mark.slow
def test_a_half_written_line_is_repaired(config: TrainConfig, undisturbed: Path, place: Make, same_run: Make) -> None:
    def stop(metrics: dict[str, float], path: Path | None) -> None:
        if metrics["epoch"] == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(config, place(), report=stop)
    record = place().out_dir / "epochs.jsonl"
    record.write_text(record.read_text()[:-30])
    fit(config, place(), report=nothing)
    same_run(place().out_dir, undisturbed)


DYING = """
import json, os, signal, sys
from pathlib import Path
from trainer.config import parse
from trainer.place import Place
from trainer.training.loop import fit
from trainer.training.member import Member

config, out, cache, last_step = parse(json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
take, steps = Member.take, 0

def dying(*arguments):
    global steps
    steps += 1
    take(*arguments)
    if steps == last_step:
        os.kill(os.getpid(), signal.SIGKILL)

Member.take = dying
fit(config, Place(out_dir=out, cache_dir=cache, device="cpu"), report=lambda *_: None)
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_epochs(config: TrainConfig, undisturbed: Path, place: Make, same_run: Make) -> None:
    """SIGKILL in the first epoch's third step, then in the second step of the second epoch it reaches."""
    out = place().out_dir
    for last_step, epochs in ((3, 0), (6, 1), (6, 2)):
        arguments = [json.dumps(config.model_dump(mode="json")), str(out), str(place().cache_dir), str(last_step)]
        done = subprocess.run([sys.executable, "-c", DYING, *arguments], capture_output=True, text=True, timeout=300)
        assert done.returncode == -signal.SIGKILL, done.stderr
        record = out / "epochs.jsonl"
        assert (len(record.read_text().splitlines()) if record.exists() else 0) == epochs
    fit(config, place(), report=nothing)
    same_run(out, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 2])
def test_fewer_checkpoints_repeat_epochs_exactly(
    stop_after: int, config: TrainConfig, undisturbed: Path, place: Make, same_run: Make
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
    same_run(sparse.out_dir, undisturbed)


@pytest.mark.slow
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


@pytest.mark.slow
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
