"""What a killed driver left is brought into the ledger; what a driver runs with stands in it."""

import hashlib
import json
import os
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from orchestrator.store import provenance
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import copy_from_folder, ending, reconcile
from trainer.config import NUMERICS_VERSION, digest
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


def test_every_run_that_was_left_is_looked_at_and_keeps_its_key(store, ledger):
    ledger.append({"event": "started", "run_id": "second"})
    ledger.append({"event": "failed", "run_id": "failed before"})
    ledger.append({"event": "started", "run_id": "last", "key": "its key"})
    for run_id in ("second", "last"):
        store.run_dir(run_id).mkdir()
    reconcile(ledger, store)
    assert {run_id: (run.status, run.key) for run_id, run in ledger.outcomes().items()} == {
        "r": ("interrupted", "k"),
        "second": ("interrupted", ""),
        "failed before": ("failed", ""),
        "last": ("interrupted", "its key"),
    }
    assert list(ledger.events())[-1]["key"] == "its key"


@pytest.mark.parametrize(("run_id", "most"), [("r", 2), ("unheard of", 2), ("never retried", 0)])
def test_what_a_folder_says_is_copied_once(store, ledger, run_id, most):
    out = store.run_dir(run_id)
    out.mkdir(exist_ok=True)
    lost, memory = {"launch": 1, "cause": "lost", "reason": "went"}, {"launch": 2, "cause": "memory", "reason": "é"}
    lines, notes = [lost, memory][:most], ["one note", "another"]
    for count in (1, 2, 2):
        made = [json.dumps(line) for line in lines[:count]]
        (out / "retries.jsonl").write_text("\n".join([*made, '{"launch": 3, "cau']))
        (out / "notes.txt").write_text("\n".join([*notes[:count], "half a no"]))
        copy_from_folder(ledger, run_id, out)
        run = ledger.outcomes()[run_id]
        assert (run.retries, run.notes) == (lines[:count], notes[:count])
    assert run.failures == {line["cause"]: 1 for line in lines}


def test_how_a_run_ended_is_what_its_folder_says_and_else_what_ray_saw(store, ledger):
    out = store.run_dir("r")
    assert ending(out, "") == ("stopped", {"last": {"epoch": 2.0, "val/miou": 40.0}}, "at epoch 2")
    assert ending(out, "it went") == ("failed", {"cause": "lost", "reason": "it went"}, "it went")
    assert ending(out, "no room", "memory") == ("failed", {"cause": "memory", "reason": "no room"}, "no room")
    run_folder.write_failure(out, "nan", "loss/ce is not finite")
    failed = ("failed", {"cause": "nan", "reason": "loss/ce is not finite"}, "loss/ce is not finite")
    assert ending(out, "it went") == failed
    run_folder.write_result(out, {**RESULT, "run_id": "another"})
    assert ending(out, "it went") == failed
    run_folder.write_result(out, RESULT)
    (out / ".lock").write_text("")
    files = ["epochs.jsonl", "failure.json", "result.json"]
    facts = {name: value for name, value in RESULT.items() if name != "run_id"}
    facts["artifacts"] = {"folder": "runs/r", "files": files}
    assert ending(out, "it went") == ("finished", facts, "val/miou 40.00  2 s")
    nothing = store.run_dir("empty")
    nothing.mkdir()
    assert ending(nothing, "") == ("stopped", {"last": {"epoch": 0.0}}, "at epoch 0")


def test_a_driver_says_once_what_it_runs_with(store):
    ledger = Ledger(store.ledger)
    for text in ("name: s", "name: s", "name: s\nseeds: 3"):
        provenance.begin("s", text, ledger, store)
    first, second = ledger.events()
    assert (first["text"], second["text"]) == ("name: s", "name: s\nseeds: 3")
    assert (first["study"], first["digest"], second["digest"]) == ("s", digest("name: s"), digest(second["text"]))
    environment = first["environment"]
    assert environment["packages"] == {name: metadata.version(name) for name in provenance.PACKAGES}
    assert environment["python"].count(".") == 2 and environment["numerics"] == NUMERICS_VERSION


def test_the_code_of_a_checkout_stands_in_what_a_driver_runs_with(store, monkeypatch):
    asked = []
    monkeypatch.setattr(provenance, "PACKAGES", ("no such package", "numpy"))
    monkeypatch.setattr(provenance, "git", lambda *where: asked.append(where) or {"commit": "c"})
    found = provenance.here(store)
    assert found["git"] == {"commit": "c"} and found["packages"].keys() == {"numpy"}
    assert asked == [(Path(provenance.__file__).parents[2], store.root / "diffs")]
    monkeypatch.setattr(provenance, "git", lambda *_: {})
    assert "git" not in provenance.here(store)


def git(folder: Path, *words: str) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *names, "-C", str(folder), *words], check=True, capture_output=True)


def test_the_code_is_named_by_its_commit_and_what_differs_from_it(tmp_path):
    checkout, diffs = tmp_path / "checkout", tmp_path / "store" / "diffs"
    assert provenance.git(checkout, diffs) == {}
    file = checkout / "trainer" / "loop.py"
    file.parent.mkdir(parents=True)
    file.write_text("one = 1\n")
    (checkout / "notes.txt").write_text("no code of ours")
    (checkout / ".gitignore").write_text("built.py\n")
    git(checkout, "init")
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "first")
    (checkout / "notes.txt").write_text("changed, and no code of ours either")
    (checkout / "trainer" / "built.py").write_text("ignored = True\n")
    clean = provenance.git(checkout, diffs)
    assert clean.keys() == {"commit", "dirty"} and len(clean["commit"]) == 40 and clean["dirty"] is False
    assert not diffs.exists()

    new = checkout / "trainer" / "new.py"
    new.write_text("")
    assert provenance.git(checkout, diffs) == {**clean, "dirty": True, "untracked": ["trainer/new.py"]}
    file.write_text("one = 2\n")
    git(checkout, "add", "trainer/loop.py")  # what is to be committed differs from what was
    dirty = [provenance.git(checkout, diffs)]
    (diffs / f"{dirty[0]['diff']}.diff").write_text("")  # a version that a kill left half written
    dirty.append(provenance.git(checkout, diffs))
    assert dirty[0] == dirty[1] and dirty[0]["dirty"] and dirty[0]["untracked"] == ["trainer/new.py"]
    text = (diffs / f"{dirty[0]['diff']}.diff").read_text()
    assert "-one = 1\n+one = 2\n" in text and dirty[0]["diff"] == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert len(list(diffs.iterdir())) == 1
    (checkout / "trainer" / "loop.py").write_text("one = 2\nuri = 'http://u:hunter2@h'\n")
    code = provenance.git(checkout, diffs)["diff"]
    text = (diffs / f"{code}.diff").read_text()
    assert "+uri = 'http://***@h'\n" in text and code == hashlib.sha256(text.encode()).hexdigest()[:12]
    (checkout / "trainer" / "loop.py").write_text("one = 2\n")
    new.unlink()
    assert provenance.git(checkout, diffs) == {**clean, "dirty": True, "diff": dirty[0]["diff"]}
    json.dumps(dirty)


def test_a_checkout_that_git_cannot_read_has_no_code_to_name(tmp_path):
    (tmp_path / "checkout" / ".git").mkdir(parents=True)
    assert provenance.git(tmp_path / "checkout", tmp_path / "diffs") == {}


def test_a_git_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / "checkout" / ".git").mkdir(parents=True)
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 5\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(slow.parent), prepend=os.pathsep)
    monkeypatch.setattr(provenance, "GIT_S", 0.1)
    assert provenance.git(tmp_path / "checkout", tmp_path / "diffs") == {}
