"""Finished runs whose checkpoint is gone: which are trained again, and how an import brings the files back."""

from __future__ import annotations

import json
import shutil

import pytest
from rich.console import Console

from ablations.study.plan import expand
from ablations.study.schema import read
from orchestrator.runs_left import count_left, to_train
from orchestrator.state.progress import study_status
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import finished
from orchestrator.terminal.plan_listing import show_plan
from tests.orchestrator.store.imported_runs import STUDY, imported, launched
from trainer.place import Place
from trainer.training.loop import fit


def cut_off(path):
    path.write_bytes(path.read_bytes()[:1000])


LOSSES = {
    "deleted": lambda path: path.unlink(),
    "folder moved": lambda path: path.parent.rename(path.parent.with_name("elsewhere")),
    "empty": lambda path: path.write_bytes(b""),
    "cut off": cut_off,
    "dangling link": lambda path: (path.unlink(), path.symlink_to("nowhere.pt")),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}

ANOTHER = STUDY + "  another: {distill.pea.weight: 2.0}\n"


@pytest.mark.slow
@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_a_teacher_whose_checkpoint_is_gone_is_trained_again_where_a_run_needs_it(folder, store, lose, capsys):
    imported(folder, store)
    (teacher,) = launched(STUDY, store).state.teachers.values()
    lose(store.run_dir(teacher.run_id) / "last.pt")
    assert count_left(launched(STUDY, store).state) == 0, "all runs have finished: nothing needs it"

    launch = launched(ANOTHER, store)
    assert [run.label for run in to_train(launch.state, launch.state.runs)] == [teacher.label, "another seed 0"]
    counts = study_status(launch.state, {}).counts
    assert counts == {"finished": 2, "missing": 2}
    show_plan(launch.state, Console(width=200))
    said = capsys.readouterr().out
    assert "4 runs, 2 reused, 3 epochs to train" in said and f"again: {teacher.label} has finished" in said

    imported(folder / "teacher segformer_mini", store)
    launch = launched(ANOTHER, store)
    left = [run.label for run in to_train(launch.state, launch.state.runs)]
    assert left == ["another seed 0"], "an import brings it back"


@pytest.mark.slow
def test_an_import_brings_back_the_files_of_a_run_and_names_a_teacher_that_lacks_its_own(folder, store):
    imported(folder / "teacher segformer_mini", store)
    imported(folder / "student alone", store)
    for run_id in Ledger(store.ledger).outcomes():
        shutil.rmtree(store.run_dir(run_id))
    state, why = imported(folder / "taught", store)["taught"]
    assert state == "left" and "has lost last.pt in the store; import that run too" in why
    assert {state for state, _ in imported(folder, store).values()} == {"taken"}
    assert all((store.run_dir(run_id) / "best.pt").is_file() for run_id in Ledger(store.ledger).outcomes())
    assert {state for state, _ in imported(folder, store).values()} == {"there"}


def test_a_run_that_trains_again_has_not_finished_until_it_ends(folder, cache):
    """The result of the lost checkpoint must not pass for that of an attempt that is killed."""
    out = folder / "student alone"
    alone = next(run for run in expand(read(STUDY, "shared")) if run.arm == out.name)
    run_id = json.loads((out / "result.json").read_text())["run_id"]
    (out / "last.pt").unlink()

    def die(*_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(alone.config, Place(out_dir=out, cache_dir=cache, device="cpu"), report=die)
    assert (out / "last.pt").is_file() and finished(out, run_id) is None
