"""While teachers train, runs that need none take the places that would be free."""

from __future__ import annotations

import pytest

from ablations.study.schema import read
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.runs_left import arms_due, beside_teachers, to_train, with_teacher
from orchestrator.store.folder import Store

STUDY = """
name: one
base:
  data: {name: scenes, size: [64, 128], options: {train: 2, val: 1, size: [64, 128]}}
  student: {name: segformer_mini}
  teacher: {name: segformer_b0, train: {epochs: TEACHER}}
  optim: {epochs: 2, global_batch: 2, norm_batch: 1}
  distill: {pea: {}}
variants: {alone: {distill: {}}, taught: {}}
seeds: 6
"""


def launch(store: Store, teacher_epochs: int) -> Launch:
    """A launch that is prepared and never trains."""
    made = Launch(read(STUDY.replace("TEACHER", str(teacher_epochs)), "one"), ClusterSpec(), store, {})
    made.prepare(lambda text: None)
    return made


@pytest.fixture
def store(tmp_path, cached):
    return Store(cached(tmp_path / "store"))


def chosen(made: Launch, slots: int) -> list[str]:
    return [run.label for run in beside_teachers(made.state, slots, made._cost)]


@pytest.mark.slow
def test_they_fill_the_free_slots_in_the_order_of_the_plan_and_no_more(store):
    assert chosen(launch(store, 100), 2) == [f"alone seed {seed}" for seed in range(6)]
    few = chosen(launch(store, 1), 2)
    assert few == [f"alone seed {seed}" for seed in range(len(few))] and 0 < len(few) < 6


def test_with_no_free_slot_and_with_no_teacher_to_train_there_are_none(store):
    made = launch(store, 100)
    assert chosen(made, 1) == []
    (teacher,) = made.state.teachers.values()
    made.ledger.append(made.job(teacher).event("finished", last={"epoch": 100.0, "val/miou": 50.0}))
    made.refresh()
    assert chosen(made, 2) == []


@pytest.mark.slow
def test_what_can_train_are_runs_without_a_teacher_and_those_whose_own_has_finished(store):
    text = STUDY.replace("TEACHER", "3").replace("taught: {}", "taught: {}, longer: {teacher.train.epochs: 9}")
    made = Launch(read(text, "one"), ClusterSpec(), store, {})
    made.prepare(lambda text: None)

    def arms() -> list[str]:
        return sorted({run.plan.arm for run in with_teacher(made.state, to_train(made.state, arms_due(made.state)))})

    assert arms() == ["alone"]
    short = next(run for run in made.state.teachers.values() if run.plan.config.optim.epochs == 3)
    made.ledger.append(made.job(short).event("finished", last={"epoch": 3.0, "val/miou": 50.0}))
    made.refresh()
    assert arms() == ["alone", "taught"]


TEACHERS = {"short": {"epochs": 1}, "long": {"epochs": 2}, "broken": {"epochs": 1, "lr": 1.0e9}}

HELD = """
import sys, time
from pathlib import Path

import orchestrator.running.tuner as tuner
from ablations.study.schema import load
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.store.folder import Store
from orchestrator.terminal.log_lines import Lines, StudyProgress
from orchestrator.tracking.mirror import Mirror
from rich.console import Console

LONG, PATIENCE_S = int(sys.argv[3]), 240


def held(config):
    from orchestrator.running.trial import trial

    (job,) = config["jobs"]
    if job["config"]["optim"]["epochs"] == LONG:  # this teacher trains until the students of another have ended
        end = time.monotonic() + PATIENCE_S
        while not (Path(job["place"]["out_dir"]).parent / "go").exists() and time.monotonic() < end:
            time.sleep(0.1)
    trial(config)


class Ended(Lines):
    def ended(self, job, status, note):
        super().ended(job, status, note)
        students.append(job.run.arm)
        if students.count("of short") == 2:
            (store.runs_dir / "go").touch()


tuner.trial = held
store, students = Store(Path(sys.argv[2])), []
job = Launch(load(sys.argv[1]), ClusterSpec(cpus_per_worker=0.5, concurrency=2, cohort="off"), store, {})
job.prepare(lambda text: None)
with store.leases.study("order"):
    job.run(Mirror("order", store), lambda: Ended(Console(file=sys.stderr), StudyProgress(job.state)))
"""


@pytest.mark.slow
@pytest.mark.ray
def test_students_start_when_their_own_teacher_is_there_while_other_teachers_train(driver, study):
    arms = {f"of {name}": {"teacher.train": recipe} for name, recipe in TEACHERS.items()}
    file = study("order", variants={**arms, "alone": {"distill": {}}})
    done = driver.script(HELD, file, driver.store, TEACHERS["long"]["epochs"])
    assert done.code == 0, done.err
    teacher_of = {}
    for event in driver.events("started"):
        if event["role"] == "teacher":
            recipe = event["config"]["optim"]
            teacher_of[event["run_id"]] = next(
                name
                for name, own in TEACHERS.items()
                if own.get("lr", recipe["lr"]) == recipe["lr"] and own["epochs"] == recipe["epochs"]
            )
    order = [
        (event["event"], f"teacher {teacher_of[event['run_id']]}" if event["role"] == "teacher" else event["arm"])
        for event in driver.events("started", "finished", "failed")
    ]
    for name in ("short", "long"):
        assert order.index(("finished", f"teacher {name}")) < order.index(("started", f"of {name}"))
    of_short = [place for place, ended in enumerate(order) if ended == ("finished", "of short")]
    assert len(of_short) == 2 and max(of_short) < order.index(("finished", "teacher long"))
    assert order.count(("finished", "of long")) == order.count(("finished", "alone")) == 2
    assert order.count(("failed", "of broken")) == 2 and ("started", "of broken") not in order
    assert [event["cause"] for event in driver.events("failed") if event["arm"] == "of broken"] == ["teacher"] * 2
    assert len([each for each in order if each[0] == "started"]) == 3 + 3 * 2, done.err
