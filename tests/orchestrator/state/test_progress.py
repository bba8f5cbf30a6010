"""Where a study stands: how long the rest takes, what is best so far, and what is tried again."""

import math

import pytest

from orchestrator.state.progress import (
    RunProgress,
    attempt_in_words,
    best,
    epochs_of,
    in_words,
    left_s,
    run_progress,
    stopped_in_words,
)
from orchestrator.store.ledger_run import LedgerRun


def run(label="a seed 0", state="running", epoch=0, epochs=10, role="arm", **more):
    return RunProgress(label, role, state, epoch, epochs, **more)


@pytest.mark.parametrize(
    ("parts", "at_once", "seconds"),
    [
        ([run(state="missing")], 1, None),
        ([run(epoch=4, epoch_s=3.0)], 1, 18.0),
        # runs that have not begun are as slow as those of their role: 6 x 3 + 10 x 3, two at once
        (
            [run(epoch=4, epoch_s=3.0), run(state="missing"), run("t", "finished", 2, 2, "teacher", epoch_s=9.0)],
            2,
            30.0,
        ),
        # a slow arm's runs to come take as long as its own, not as long as the mean of all: 10 x 9 + 10 x 1
        (
            [
                run("a", "finished", 10, epoch_s=9.0, like="a"),
                run("b", "finished", 10, epoch_s=1.0, like="b"),
                run("a", "missing", like="a"),
                run("b", "missing", like="b"),
            ],
            1,
            100.0,
        ),
        # an arm that was tuned has its trials' pace before its own runs begin
        (
            [
                run("0", "finished", 10, role="trial", epoch_s=4.0, like="a"),
                run("1", "finished", 10, role="trial", epoch_s=1.0, like="b"),
                run("a", "missing", like="a"),
            ],
            1,
            40.0,
        ),
        # the teacher's own pace, before any arm has begun
        ([run("t", epoch=1, epochs=2, role="teacher", epoch_s=9.0), run(state="missing", epochs=1)], 1, 18.0),
        # one long run is not shared out
        ([run(epoch=0, epochs=100, epoch_s=1.0), run(epoch=9, epoch_s=1.0)], 2, 100.0),
        # what failed, stopped or finished has nothing left
        ([run(state=s, epoch=1, epoch_s=1.0) for s in ("failed", "stopped")] + [run("b", "finished", 10)], 1, 0.0),
        # a trial to come is taken to go as far as those before it
        (
            [
                run("0", "finished", 10, role="trial", epoch_s=1.0),
                run("1", "stopped", 2, role="trial", epoch_s=1.0),
                run("2", "missing", role="trial"),
            ],
            1,
            6.0,
        ),
    ],
)
def test_how_long_the_rest_takes(parts, at_once, seconds):
    assert left_s(parts, at_once) == seconds


def test_how_long_is_said_in_words():
    said = [in_words(seconds) for seconds in (None, 0.0, 30.0, 89.0, 91.0, 7000.0, 9000.0)]
    assert said == [
        "",
        "",
        "about 30 s left",
        "about 89 s left",
        "about 2 min left",
        "about 117 min left",
        "about 2.5 h left",
    ]


def test_epochs_that_a_stopped_run_no_longer_needs_are_not_waited_for():
    assert epochs_of([run(epoch=4), run(state="stopped", epoch=2), run(state="missing")]) == (6, 22)


def test_the_best_is_an_arm_where_there_is_one_never_a_teacher_and_never_nan():
    teacher, trial = run("t", role="teacher", score=90.0), run("trial 0", role="trial", score=70.0)
    nan, low, high = run("n", score=math.nan), run("l", score=40.0), run("h", score=41.0)
    assert best([teacher]) is best([nan]) is best([]) is None
    assert best([teacher, trial, nan]) == trial
    assert best([teacher, trial, nan, low, high]) == high


def test_stopped_trials_are_counted_by_the_epoch_they_came_to():
    trials = [run(state="stopped", epoch=epoch) for epoch in (3, 1, 1)]
    assert stopped_in_words([*trials, run(state="finished", epoch=10)]) == "3 stopped, at epoch 1 (2), 3 (1)"
    assert stopped_in_words([run()]) == ""


def test_an_attempt_after_a_failed_one_says_so():
    run = LedgerRun("r", status="running", attempts=1)
    assert attempt_in_words(run) == ""
    run.retries.append({"cause": "lost", "reason": "died"})
    run.attempts = 2
    assert attempt_in_words(run) == "again after a lost worker, attempt 2"
    run.retries.append({"cause": "memory", "reason": "full", "micro_batch": 4})
    run.attempts = 3
    assert (
        run_progress("a", "arm", 3, "val/miou", "running", run).note
        == "again after too little memory, attempt 3, micro-batch 4"
    )
    assert run_progress("a", "arm", 3, "val/miou", "finished", run).note == ""


def test_a_run_is_told_by_its_last_measurement_and_its_mean_epoch():
    epochs = [{"epoch": 1, "val/miou": 5.0, "seconds": 2.0}, {"epoch": 2, "seconds": 4.0}]
    run = LedgerRun("r", status="failed", epochs=epochs, cause="nan", reason="loss/ce is nan", failures={"nan": 1})
    told = run_progress("a seed 0", "arm", 3, "val/miou", "failed", run)
    assert told == RunProgress("a seed 0", "arm", "failed", 2, 3, 5.0, 3.0, "nan: loss/ce is nan", "val/miou")
    assert run_progress("a seed 0", "arm", 3, "val/miou", "missing", None) == RunProgress(
        "a seed 0", "arm", "missing", 0, 3, metric="val/miou"
    )
