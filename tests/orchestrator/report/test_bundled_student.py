"""The student of an arm in a bundle: the median seed's, which predicts what its run's checkpoint predicts."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.report.bundle import pack, unpacked
from orchestrator.report.bundled_student import median_run, student_files
from orchestrator.state.study_state import StudyState
from orchestrator.store.ledger import Ledger
from orchestrator.store.objects.copy_store import copy_store
from orchestrator.verbs.options import store_of
from trainer.config import UserError, parse
from trainer.deploy.open import Wanted, open_student
from trainer.files.run_folder import LAST
from trainer.models.base import LOGITS
from trainer.place import Place
from trainer.training.loop import fit

TINY = {
    "data": {"name": "scenes", "size": [64, 128], "options": {"train": 4, "val": 2, "size": [64, 128]}},
    "student": {"name": "segformer_tiny"},
    "optim": {"epochs": 1, "global_batch": 4, "norm_batch": 4},
}


def state(made):
    return StudyState(made.study, Ledger(made.store.ledger))


def test_the_run_is_the_median_of_the_arm_that_finished(synthetic):
    made = synthetic(ends={("student alone", 1): "failed"})
    found = state(made)
    scores = {
        run.plan.seed: found.outcomes[run.plan.key].metrics[made.study.metric]
        for run in found.runs
        if run.plan.arm == "student alone" and run.finished
    }
    assert len(scores) == 5 and len(set(scores.values())) == 5
    chosen = median_run(found, "student alone").plan.seed
    assert scores[chosen] == np.median(list(scores.values()))
    made = synthetic(where="even")
    found = state(made)
    chosen = median_run(found, "student alone")
    values = sorted(
        found.outcomes[run.plan.key].metrics[made.study.metric] for run in found.runs if run.plan.arm == "student alone"
    )
    assert found.outcomes[chosen.plan.key].metrics[made.study.metric] == values[2], "the lower of the two in the middle"


@pytest.mark.slow
def test_an_arm_that_is_not_there_or_has_no_run_is_refused_and_nothing_is_written(synthetic, tmp_path):
    made = synthetic(ends={("student alone", seed): None for seed in range(6)})
    file = tmp_path / "arms.tar.gz"
    for arm, message in (
        ("student alnoe", "--student: unknown arm of arms 'student alnoe'; did you mean 'student alone'?"),
        ("student alone", "--student student alone has no finished run in this store"),
        ("Base <both>", "is not there; give the store that trained it"),
    ):
        with pytest.raises(UserError) as error:
            pack(made.study, made.file.read_text(), made.store, file, arm)
        assert message in str(error.value)
        assert not file.exists()


@pytest.mark.slow
def test_the_student_in_a_bundle_predicts_as_its_run(synthetic, tmp_path, cache):
    made, file = synthetic(), tmp_path / "arms.tar.gz"
    fit(parse(TINY), Place(out_dir=tmp_path / "run", cache_dir=cache, device="cpu"), report=lambda metrics, path: None)
    run = made.store.run_dir(median_run(state(made), "student alone").run_id)
    shutil.copytree(tmp_path / "run", run, dirs_exist_ok=True)
    pack(made.study, made.file.read_text(), made.store, file, "student alone")
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    taken = tmp_path / "out" / "arms" / "student" / LAST
    images = torch.rand(1, 3, 64, 128)
    with torch.inference_mode():
        ours, theirs = (
            open_student(path, Wanted(), "cpu").model(images, None, LOGITS).logits for path in (taken, run / LAST)
        )
    assert torch.equal(ours, theirs)
    assert open_student(taken, Wanted(), "cpu").origin["run_id"], "the result beside it names the run"
    assert taken.stat().st_size < (run / LAST).stat().st_size / 2, "without the optimiser"
    with unpacked(file) as (study, _):
        assert study.name == "arms"


def test_the_student_of_a_store_at_an_address_is_fetched(synthetic, tmp_path, monkeypatch):
    """Its checkpoint is not in the working copy yet. It is none that can be read: all of it has been fetched."""
    monkeypatch.setenv("TRANSKD_CACHE", str(tmp_path / "cache"))
    made, address = synthetic(), f"file://{tmp_path / 'bucket'}"
    run_id = median_run(state(made), "student alone").run_id
    made.store.run_dir(run_id).mkdir(parents=True, exist_ok=True)
    (made.store.run_dir(run_id) / LAST).write_bytes(b"no checkpoint")
    copy_store(made.store.root, address)
    there = store_of(Path(address), None)
    assert not (there.run_dir(run_id) / LAST).exists()
    with pytest.raises(UserError):
        student_files(StudyState(made.study, Ledger(there.ledger)), there, "student alone")
    assert (there.run_dir(run_id) / LAST).read_bytes() == b"no checkpoint"
