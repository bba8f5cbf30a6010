"""How long the rest takes, by a clock that the test sets."""

from types import SimpleNamespace

import pytest

from orchestrator import progress
from orchestrator.progress import Clock


@pytest.fixture
def now(monkeypatch):
    time = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: time.s))
    return time


def job(name, epochs=10):
    return SimpleNamespace(run_id=name, epochs=epochs)


def test_what_comes_before_the_first_epoch_is_not_multiplied(now):
    clock = Clock(20)
    assert clock.remaining() == ""
    now.s += 500  # imports and Ray
    clock.epoch(job("a"), 1)
    assert clock.remaining() == ""
    now.s += 2
    clock.epoch(job("a"), 2)
    assert clock.remaining() == "about 36 s left"
    clock.epoch(job("a"), 2)  # told twice, counted once
    assert clock.remaining() == "about 36 s left"


def test_runs_side_by_side_share_the_clock_and_a_resumed_one_counts_what_it_does_now(now):
    clock = Clock(19)
    clock.epoch(job("a"), 1)
    now.s += 60
    clock.epoch(job("b"), 2)  # its first epoch was another process's
    assert clock.remaining() == "about 17 min left"


def test_epochs_that_a_stopped_run_no_longer_needs_are_not_waited_for(now):
    clock = Clock(20)
    clock.epoch(job("a"), 1)
    now.s += 1
    clock.epoch(job("a"), 2)
    clock.forget(job("a"))
    assert clock.remaining() == "about 10 s left"
