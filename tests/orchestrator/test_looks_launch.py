"""A launch of a study with looks: what is to do follows the ledger, whoever wrote it and wherever it was cut off."""

from __future__ import annotations

import pytest

from ablations.study.schema import read
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.report.table import table
from orchestrator.runs_left import arms_due, count_all, count_left, to_train, unfinished
from orchestrator.state.progress import study_status
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger

STUDY = """
name: NAME
base:
  data: {name: scenes, size: [64, 128], options: {train: 2, val: 1, size: [64, 128]}}
  student: {name: segformer_tiny}
  optim: {epochs: 1, global_batch: 2, norm_batch: 1}
variants: {alone: {}, like it: {optim.lr: 1.0e-4}, better: {optim.lr: 1.0e-2}}
seeds: {looks: [6, 8, 12], until: decided}
"""
SCORES = {"alone": 50.0, "like it": 50.0, "better": 60.0}


class Lab:
    """A store, and launches of the study on it that are prepared and never train."""

    def __init__(self, root):
        self.store = Store(root)
        self.ledger = Ledger(self.store.ledger)

    def study(self, name="one"):
        return read(STUDY.replace("NAME", name), name)

    def launch(self, name="one"):
        launch = Launch(self.study(name), ClusterSpec(cpus_per_worker=0.5), self.store, {})
        launch.prepare(lambda text: None)
        return launch

    def end(self, job, kind="finished"):
        """The run has ended, as its trial would tell the ledger."""
        wobble = (-1) ** job.run.seed if job.run.arm == "like it" else 0.1 * job.run.seed
        more = {"cause": "bug", "reason": "a bug"} if kind == "failed" else {}
        last = {"epoch": 1.0, "val/miou": SCORES[job.run.arm] + wobble}
        self.ledger.append(job.event("started"))
        self.ledger.append(job.event(kind, last=last, **more))

    def work_off(self, launch, looks):
        """End all that is due, as many times as asked; how many runs that was each time."""
        done = []
        for _ in range(looks):
            launch.refresh()
            todo = to_train(launch.state, arms_due(launch.state))
            done.append(len(todo))
            for job in todo:
                self.end(launch.job(job))
        launch.refresh()
        return done


@pytest.fixture
def lab(tmp_path, cached):
    return Lab(cached(tmp_path / "store"))


def test_each_look_asks_for_the_undecided_arms_and_their_reference_only(lab):
    launch = lab.launch()
    assert count_left(launch.state) == 18
    assert lab.work_off(launch, 4) == [18, 6, 8, 0]
    assert count_left(launch.state) == 0
    assert unfinished(launch.state) == {}
    counts = {arm: sum(run.plan.arm == arm for run in arms_due(launch.state)) for arm in SCORES}
    assert counts == {"alone": 12, "like it": 12, "better": 8}


def test_a_launch_that_was_cut_off_goes_on_where_the_ledger_ends(lab):
    first = lab.launch()
    lab.work_off(first, 1)
    for run in to_train(first.state, arms_due(first.state))[:4]:
        lab.end(first.job(run))
    again = lab.launch()
    assert count_left(again.state) == 2
    assert lab.work_off(again, 3) == [2, 8, 0]
    assert count_left(lab.launch().state) == 0


def test_a_run_that_failed_ends_its_look_and_is_tried_again_by_the_next_launch(lab):
    launch = lab.launch()
    todo = to_train(launch.state, arms_due(launch.state))
    lab.end(launch.job(todo[-1]), "failed")
    for run in todo[:-1]:
        lab.end(launch.job(run))
    launch.refresh()
    assert [run.plan.seed for run in arms_due(launch.state) if run.plan.arm == "better"] == list(range(8))
    again = lab.launch()
    assert todo[-1].run_id in {job.run_id for job in to_train(again.state, arms_due(again.state))}


@pytest.mark.slow
def test_what_is_to_do_is_without_the_seeds_of_later_looks_where_variants_are_tuned(lab):
    tuned = STUDY.partition("variants")[0].replace("{train: 2", "{train: 4").replace("data: {", "data: {select: 0.25, ")
    tuned += """
variants: {alone: {}, dropout: {student.dropout: 0.2}}
seeds: {looks: [6, 8, 12], until: decided}
tune_each: {trials: 2, startup: 1, space: {optim.lr: {log: [1.0e-4, 1.0e-2]}}}
"""
    study = read(tuned.replace("NAME", "tuned"), "tuned")
    launch = Launch(study, ClusterSpec(cpus_per_worker=0.5), lab.store, {})
    launch.prepare(lambda text: None)
    assert count_all(launch.state) == count_left(launch.state) == 16
    assert study_status(StudyState(study, lab.ledger), {}).counts == {"missing": 16}


def test_runs_of_another_study_take_part_in_the_looks_of_this(lab):
    lab.work_off(lab.launch("one"), 3)
    assert count_left(lab.launch("two").state) == 0


def test_status_and_table_count_no_run_that_was_not_needed(lab):
    lab.work_off(lab.launch(), 3)
    study = lab.study()
    assert study_status(StudyState(study, lab.ledger), {}).counts == {"finished": 32}
    shown = table(StudyState(study, lab.ledger))
    assert [(row.cells[0], row.cells[1], row.values.get("verdict")) for row in shown.rows] == [
        ("alone", "12", None),
        ("like it", "12", "undecided"),
        ("better", "8", "better"),
    ]
