"""`transkd import`: what the trainer finished anywhere is taken in once, and what is not what it says is left."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest
import typer

from ablations.study.plan import expand
from ablations.study.schema import read
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.runs_left import count_left
from orchestrator.store.full_disk import StoreFull
from orchestrator.store.import_runs import take_in
from orchestrator.store.ledger import Ledger
from orchestrator.verbs.import_ import import_
from tests.orchestrator.store.imported_runs import STUDY, imported, launched, nothing, unfinished
from trainer.files.run_folder import read_epochs, read_result
from trainer.place import Place
from trainer.training.loop import fit


@pytest.mark.slow
def test_a_tree_is_taken_in_once_and_the_study_has_nothing_left_to_do(folder, store, trained):
    found = imported(folder, store)
    assert {name: state for name, (state, _) in found.items()} == dict.fromkeys(found, "taken") and len(found) == 3
    runs = {run.imported.rpartition("/")[2]: run for run in Ledger(store.ledger).outcomes().values()}
    for name, run in runs.items():
        assert (run.status, run.attempts) == ("finished", 0)
        assert run.epochs == read_epochs(folder / name) and run.last == run.epochs[-1]
        assert run.environment["device"] == "cpu" and run.data.keys() == {"train", "val"}
        assert {"best.pt", "last.pt", "config.yaml"} <= set(run.artifacts["files"])
        for file in ("best.pt", "last.pt", "config.yaml", "epochs.jsonl", "result.json"):
            assert (store.run_dir(run.run_id) / file).read_bytes() == (folder / name / file).read_bytes()
    assert runs["taught"].weights["teacher"]["sha256"]

    before = store.ledger.read_bytes()
    assert {state for state, _ in imported(folder, store).values()} == {"there"}
    assert store.ledger.read_bytes() == before

    launch = Launch(read(STUDY, "shared"), ClusterSpec(cpus_per_worker=0.5), store, {})
    launch.prepare(nothing)
    assert count_left(launch.state) == 0, "the study reuses what was imported"
    shutil.rmtree(folder)
    assert all((store.root / run.artifacts["folder"] / "best.pt").exists() for run in runs.values())


@pytest.mark.slow
def test_one_folder_is_taken_in_alone_and_a_pupil_only_after_its_teacher(folder, store):
    assert imported(folder / "student alone", store)["student alone"][0] == "taken"
    state, why = imported(folder / "taught", store)["taught"]
    assert state == "left" and "is not in the store; import that run too" in why
    assert imported(folder / "teacher segformer_mini", store)["teacher segformer_mini"][0] == "taken"
    assert imported(folder / "taught", store)["taught"][0] == "taken"


@pytest.mark.slow
def test_a_pupil_may_have_any_run_of_the_store_for_a_teacher_and_is_reused_where_a_study_trains_that_one(
    folder, store, cache, tmp_path
):
    """The arms' own learning rate is not the teacher's: in `shared` the base's recipe trains it."""
    own = STUDY + "  fast: {optim.lr: 3.0e-3}\n"
    fast = expand(read(own, "shared"))[-1].config
    last = folder / "teacher segformer_mini" / "last.pt"
    copy = shutil.copy(last, tmp_path / "a copy.pt")
    fit(fast, Place(out_dir=folder / "fast", cache_dir=cache, device="cpu", teacher=copy), report=nothing)
    chained = fast.model_copy(update={"teacher": fast.teacher.model_copy(update={"name": "segformer_tiny"})})
    pupil = folder / "fast" / "last.pt"
    place = Place(out_dir=folder / "a pupil's pupil", cache_dir=cache, device="cpu", teacher=pupil)
    fit(chained, place, report=nothing)
    found = imported(folder, store)
    assert {state for state, _ in found.values()} == {"taken"} and len(found) == 5
    names = list(found)
    assert names.index("teacher segformer_mini") < names.index("fast") < names.index("a pupil's pupil")
    assert count_left(launched(own, store).state) == 0
    other = launched(own.replace("lr: 1.0e-3", "lr: 2.0e-3"), store)
    assert count_left(other.state) == 4, "that base trains another teacher"


def test_an_attempt_of_the_stores_own_gives_way_and_a_kill_between_is_mended(folder, store, monkeypatch):
    ledger = Ledger(store.ledger)
    run_id = json.loads((folder / "student alone" / "result.json").read_text())["run_id"]
    ledger.append({"event": "started", "run_id": run_id, "key": "k", "study": "s"})
    store.run_dir(run_id).mkdir(parents=True)
    (store.run_dir(run_id) / "epochs.jsonl").write_text("")

    def die(*_):
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.store.import_runs.record", die)
        with pytest.raises(InterruptedError):
            imported(folder / "student alone", store)
    assert ledger.finished(run_id) is None
    assert imported(folder / "student alone", store)["student alone"][0] == "taken"
    assert len(ledger.finished(run_id).epochs) == 2


def test_a_full_disk_pauses_and_nothing_half_copied_stays(folder, store, monkeypatch):
    run_id = json.loads((folder / "student alone" / "result.json").read_text())["run_id"]
    (store.runs_dir / f".{run_id}.1").mkdir(parents=True)  # left by an import that was killed

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", full)
        with pytest.raises(StoreFull, match=f"No space left on device; the store {store.root} is on"):
            imported(folder / "student alone", store)
    assert list(store.runs_dir.iterdir()) == []
    assert imported(folder / "student alone", store)["student alone"][0] == "taken"
    assert [path.name for path in store.runs_dir.iterdir()] == [run_id]


def test_the_verb_names_every_folder_and_counts(folder, tmp_path, capsys):
    unfinished(folder / "taught")
    for said in ("2 imported, 0 already there, 1 refused", "0 imported, 2 already there, 1 refused"):
        with pytest.raises(typer.Exit) as end:
            import_(folder, tmp_path / "store")
        assert end.value.exit_code == 2, "something was refused"
        *lines, last = capsys.readouterr().out.splitlines()
        assert last == said
        assert f"refused: {folder / 'taught'}: not finished: 2 of 2 epochs" in lines
        assert sum(line.startswith(("imported: ", "already there: ")) for line in lines) == 2


def test_a_run_that_a_driver_trains_is_left_to_it(folder, store):
    run_id = read_result(folder / "student alone")["run_id"]
    claim = store.leases.claim(run_id, "watched")
    state, about = imported(folder / "student alone", store)["student alone"]
    assert state == "left" and about.startswith(f"run {run_id} is trained by study watched, pid {os.getpid()} on ")
    assert not store.run_dir(run_id).exists()
    claim.give_back()
    assert imported(folder / "student alone", store)["student alone"][0] == "taken"


def test_a_run_that_is_trained_while_it_is_looked_at_is_not_replaced(folder, store):
    def measure(candidate):
        """A driver finishes the run while the import measures it."""
        take_in_of_another = take_in([candidate.folder], store, Ledger(store.ledger, "other"))
        assert [one.state for one in take_in_of_another] == ["taken"]
        (store.run_dir(candidate.run_id) / "mark").touch()

    assert imported(folder / "student alone", store, measure)["student alone"][0] == "there"
    (run_id,) = Ledger(store.ledger).outcomes()
    assert (store.run_dir(run_id) / "mark").exists()
