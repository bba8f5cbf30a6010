"""What a killed driver left is brought into the ledger; what a driver runs with stands in it."""

import json
import subprocess
from pathlib import Path

import pytest

from orchestrator.store import provenance
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import reconcile
from trainer.files import run_folder

RESULT = {
    "run_id": "r",
    "last": {"epoch": 2.0, "val/miou": 40.0},
    "best": {"epoch": 2.0, "val/miou": 40.0},
    "complexity": {"params_m": 3.7},
    "environment": {"device": "cpu"},
    "seconds": 2.5,
    "data": {"train": "a", "val": "b"},
    "weights": {"teacher": {"sha256": "c"}},
}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def ledger(store):
    """One with a run that began, and one epoch that its driver heard of."""
    ledger = Ledger(store.ledger)
    ledger.append({"event": "started", "run_id": "r", "key": "k", "study": "s", "arm": "a", "seed": 0})
    ledger.append_epochs("r", [{"epoch": 1.0}])
    out = store.run_dir("r")
    out.mkdir(parents=True)
    run_folder.write_epochs(out, [{"epoch": 1.0}, {"epoch": 2.0, "val/miou": 40.0}])
    return ledger


def test_a_run_that_was_cut_short_is_interrupted_and_keeps_its_epochs(store, ledger):
    run_folder.append_note(store.run_dir("r"), "checkpoint last.pt could not be read; began again")
    for _ in range(2):
        reconcile(ledger, store)
        run = ledger.outcomes()["r"]
        assert (run.status, run.attempts, len(run.epochs), len(run.notes)) == ("interrupted", 1, 2, 1)
    assert [event["event"] for event in ledger.events()] == ["started", "note", "interrupted"]


def test_a_run_that_ended_as_its_driver_died_is_finished(store, ledger):
    run_folder.write_result(store.run_dir("r"), RESULT)
    reconcile(ledger, store)
    run = ledger.finished("r")
    assert (run.last, run.seconds, run.data, run.weights) == (
        RESULT["last"],
        2.5,
        {"train": "a", "val": "b"},
        {"teacher": {"sha256": "c"}},
    )
    assert run.artifacts == {"folder": "runs/r", "files": ["epochs.jsonl", "result.json"]}
    assert [epoch["epoch"] for epoch in run.epochs] == [1, 2]


def test_a_result_of_another_run_finishes_nothing(store, ledger):
    run_folder.write_result(store.run_dir("r"), {**RESULT, "run_id": "other"})
    reconcile(ledger, store)
    assert ledger.outcomes()["r"].status == "interrupted"


def test_a_driver_says_once_what_it_runs_with(store):
    ledger = Ledger(store.ledger)
    for text in ("name: s", "name: s", "name: s\nseeds: 3"):
        provenance.begin("s", text, ledger, store)
    first, second = ledger.events()
    assert (first["text"], second["text"]) == ("name: s", "name: s\nseeds: 3")
    environment = first["environment"]
    assert {"torch", "ray", "optuna", "mlflow", "timm", "numpy"} <= environment["packages"].keys()
    assert environment["python"].count(".") == 2


def git(folder: Path, *words: str) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *names, "-C", str(folder), *words], check=True, capture_output=True)


def test_the_code_is_named_by_its_commit_and_what_differs_from_it(tmp_path):
    checkout, diffs = tmp_path / "checkout", tmp_path / "diffs"
    assert provenance.git(checkout, diffs) == {}
    file = checkout / "trainer" / "loop.py"
    file.parent.mkdir(parents=True)
    file.write_text("one = 1\n")
    git(checkout, "init")
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "first")
    (checkout / "notes.txt").write_text("no code of ours")
    clean = provenance.git(checkout, diffs)
    assert clean.keys() == {"commit", "dirty"} and len(clean["commit"]) == 40 and clean["dirty"] is False
    assert not diffs.exists()

    file.write_text("one = 2\n")
    (checkout / "trainer" / "new.py").write_text("")
    dirty = [provenance.git(checkout, diffs)]
    (diffs / f"{dirty[0]['diff']}.diff").write_text("")  # a version that a kill left half written
    dirty.append(provenance.git(checkout, diffs))
    assert dirty[0] == dirty[1] and dirty[0]["dirty"] and dirty[0]["untracked"] == ["trainer/new.py"]
    assert "-one = 1\n+one = 2\n" in (diffs / f"{dirty[0]['diff']}.diff").read_text()
    assert len(list(diffs.iterdir())) == 1
    json.dumps(dirty)
