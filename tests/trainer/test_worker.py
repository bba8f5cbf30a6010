"""train_workers(): what a process of Ray reports of each run beside others, and what it leaves in their folders.

No Ray runs here: what would be sent to Tune is kept in a list.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from trainer import worker
from trainer.data.batch import Batch
from trainer.distill import DISTILLERS
from trainer.distill.base import Distiller
from trainer.files import run_folder
from trainer.models.base import SegOutput
from trainer.place import Place
from trainer.training.sources import run_id
from trainer.worker import train_worker, train_workers

pytestmark = pytest.mark.slow

Make = Callable[..., Any]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the runs send, in place of what Tune hears."""
    monkeypatch.setattr(worker.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "0f1e"))
    monkeypatch.setattr(worker, "LOCK_WAIT_S", 0.2)
    return []


@pytest.fixture
def settings(recipe: Make, tiny: Make, place: Callable[..., Place]) -> Callable[..., dict[str, Any]]:
    """settings("one", {"pea": {}}, {"optim.lr": 0.1}, run_id="x") -> what `train_workers` gets for a run."""

    def make(name: str, distill: Any = None, changes: Any = None, **more: Any) -> dict[str, Any]:
        given = {"config": recipe(distill, changes), "place": asdict(place(name)), "workers": 1}
        if "run_id" not in more:
            more["run_id"] = run_id(tiny(distill, changes), place(name))
        return {**given, **more}

    return make


def told(sent: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """What each run reported, in order: its epochs, and True for its end. Runs may be told of in any order."""
    found: dict[str, list[Any]] = {}
    for report in sent:
        found.setdefault(report["run_id"], []).append(report.get("epoch", report.get("ended")))
    return found


def test_each_report_names_its_run_and_each_end_is_reported(settings: Make, sent: list[Any], place: Make) -> None:
    asked = [settings("one"), settings("two", {"pea": {}}, {"optim.epochs": 1})]
    one, two = (each["run_id"] for each in asked)
    train_workers(asked, sent.append)
    assert told(sent) == {one: [1, 2, True], two: [1, True]}
    for name in ("one", "two"):
        assert json.loads((place(name).out_dir / "result.json").read_text())["status"] == "finished"
        assert {path.name for path in place(name).out_dir.iterdir() if path.name[0] == "."} == set()
    assert all({"loss", "val/miou", "seconds"} <= each.keys() for each in sent if "ended" not in each)
    assert all(each.keys() == {"run_id", "ended"} for each in sent if "ended" in each)


def test_of_a_single_run_only_epochs_are_reported(settings: Make, sent: list[Any]) -> None:
    asked = settings("one")
    train_worker(asked, sent.append)
    assert told(sent) == {asked["run_id"]: [1, 2]}


def test_a_run_is_ended_by_its_driver(
    settings: Make, sent: list[Any], place: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [settings("one"), settings("two", {"pea": {}})]
    one, two = (each["run_id"] for each in asked)

    def report(metrics: dict[str, Any]) -> None:
        sent.append(metrics)
        if metrics["run_id"] == two:
            run_folder.ask_to_end(place("two").out_dir)

    train_workers(asked, report)
    assert told(sent) == {one: [1, 2, True], two: [1, True]}
    assert not (place("two").out_dir / "result.json").exists()
    assert run_folder.read_failure(place("two").out_dir) is None
    train_workers(asked[1:], sent.append)  # asked for again, it goes on
    assert told(sent)[two] == [1, True, 2]
    assert (place("two").out_dir / "result.json").exists()


def test_runs_end_after_a_step_where_the_machine_is_about_to_be_taken_away(
    settings: Make, sent: list[Any], place: Make
) -> None:
    asked = [settings("one"), settings("two", {"pea": {}})]
    for each in asked:
        each["place"]["checkpoint_every"] = 10
    one, two = (each["run_id"] for each in asked)
    train_workers(asked, sent.append, lambda: True)
    assert told(sent) == {one: [True], two: [True]}
    said = "the machine was taken away with notice; step 1 of epoch 1 was saved"
    for name in ("one", "two"):
        assert run_folder.read_failure(place(name).out_dir) == {"cause": "preempted", "reason": said}
    train_workers(asked, sent.append)
    assert told(sent) == {one: [True, 1, 2, True], two: [True, 1, 2, True]}


class Broken(Distiller):
    """A path that raises in its first step."""

    needs = frozenset({"embeds"})
    error: Exception

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        raise type(self).error


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    def make(error: Exception) -> None:
        monkeypatch.setattr(Broken, "error", error, raising=False)
        monkeypatch.setitem(DISTILLERS, "broken", Broken)

    return make


def test_failures_are_recorded_in_their_own_folders(
    settings: Make, sent: list[Any], place: Make, broken: Callable[[Exception], None]
) -> None:
    broken(ValueError("a mistake of a path"))
    asked = {
        "good": settings("good"),
        "bug": settings("bug", {"broken": {}}),
        "nan": settings("nan", {}, {"optim.lr": 1e30}),
        "other": settings("other", {}, {"optim.lr": 1e-4}, run_id="0123456789ab"),
        "config": {**settings("config"), "config": {"optim": {"lr": -1}}, "run_id": "its id"},
    }
    with run_folder.lock_folder(place("locked").out_dir):
        train_workers([*asked.values(), settings("locked", {}, {"optim.lr": 1e-5})], sent.append)
    found = {name: run_folder.read_failure(place(name).out_dir) for name in (*asked, "locked")}
    assert found.pop("good") is None
    causes = {name: failure["cause"] for name, failure in found.items() if failure}
    assert causes == {"bug": "bug", "nan": "nan", "other": "user", "config": "user", "locked": "user"}
    assert found["bug"]["reason"].startswith("ValueError: a mistake of a path (trainer/")
    assert "planned as 0123456789ab but is " in found["other"]["reason"]
    assert "is being trained in by process" in found["locked"]["reason"]
    assert "ValueError: a mistake of a path" in (place("bug").out_dir / "traceback.txt").read_text()
    assert not (place("nan").out_dir / "traceback.txt").exists()
    assert (place("good").out_dir / "result.json").exists()
    ends = [report["run_id"] for report in sent if report.get("ended")]
    assert set(ends) >= {each["run_id"] for each in asked.values()} and len(ends) == len(set(ends)) == 6


def test_a_gpu_that_fails_costs_all_runs_that_are_not_over(
    settings: Make, sent: list[Any], place: Make, broken: Callable[[Exception], None]
) -> None:
    broken(RuntimeError("CUDA error: an illegal memory access was encountered"))
    train_workers(
        [settings("one"), settings("two", {"broken": {}}), settings("bad", run_id="0123456789ab")], sent.append
    )
    for name in ("one", "two"):
        failure = run_folder.read_failure(place(name).out_dir)
        assert failure is not None and failure["cause"] == "device"
        assert not (place(name).out_dir / ".lock").exists()
    failure = run_folder.read_failure(place("bad").out_dir)
    assert failure is not None and failure["cause"] == "user"


def test_a_full_disk_is_raised_and_nobodys_failure(
    settings: Make, sent: list[Any], place: Make, broken: Callable[[Exception], None]
) -> None:
    broken(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        train_workers([settings("one"), settings("two", {"broken": {}})], sent.append)
    assert sent == []
    assert all(run_folder.read_failure(place(name).out_dir) is None for name in ("one", "two"))
    assert not (place("one").out_dir / ".lock").exists()


def test_a_single_run_that_fails_is_recorded_as_before(settings: Make, sent: list[Any], place: Make) -> None:
    train_worker(settings("one", {"pea": {}}, {"optim.lr": 1e30}), sent.append)
    failure = run_folder.read_failure(place("one").out_dir)
    assert failure is not None and failure["cause"] == "nan"
    train_worker(settings("two", run_id="0123456789ab"), sent.append)
    failure = run_folder.read_failure(place("two").out_dir)
    assert failure is not None and failure["reason"].startswith("the run was planned as 0123456789ab but is ")
    assert sent == []


def test_a_run_waits_longer_for_a_worker_of_a_lost_head_than_that_lives():
    """A node of Ray ends its workers once its head has been gone for 60 s (measured: a worker ends after 61 s)."""
    assert worker.LOCK_WAIT_S > 75
