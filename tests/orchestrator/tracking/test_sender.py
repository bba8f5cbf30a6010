"""The sender keeps order, waits out a server that is gone, comes back by itself, and never raises."""

import logging
import threading
import time
from types import SimpleNamespace

import pytest

from orchestrator.tracking import sender as module
from orchestrator.tracking.sender import LONGEST_S, Sender, pause_s


class There:
    """Another side that can be gone."""

    def __init__(self):
        self.gone = ""
        self.got = []
        self.asked = 0

    def why_unreachable(self):
        self.asked += 1
        return self.gone

    def take(self, what):
        """An action that delivers `what`."""

        def action():
            if self.gone:
                raise ConnectionError(self.gone)
            self.got.append(what)

        return action


@pytest.fixture
def there():
    return There()


@pytest.fixture
def quick(monkeypatch):
    """Pauses a test can wait for."""
    monkeypatch.setattr(module, "FIRST_S", 0.02)
    monkeypatch.setattr(module, "LONGEST_S", 0.1)


def wait_for(condition, timeout_s=240.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def test_order_is_kept_and_of_one_name_only_the_newest_is_done(there):
    sender = Sender(there.why_unreachable, "there")
    begun, go = threading.Event(), threading.Event()
    sender.send("slow", lambda: (begun.set(), go.wait(10.0), there.got.append("slow")))
    assert begun.wait(10.0)
    for epoch in range(10):
        sender.send("run0", there.take(f"run0 {epoch}"))
        sender.send("run1", there.take(f"run1 {epoch}"))
    assert there.got == [], "sending waits for nothing"
    go.set()
    assert sender.close() == set()
    assert there.got == ["slow", "run0 9", "run1 9"]


def test_an_action_that_may_wait_is_done_once_for_all_of_its_name_and_delays_no_other(there, monkeypatch):
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.s))
    sender = Sender(there.why_unreachable, "there")
    for epoch in range(5):
        sender.send("run0", there.take(f"run0 {epoch}"), within_s=600.0)
        now.s += 100.0
    sender.send("run1", there.take("run1"))
    wait_for(lambda: there.got == ["run1"])
    now.s = 600.0  # the first of them has waited long enough
    sender.send("run2", there.take("run2"))
    wait_for(lambda: len(there.got) == 3)
    assert there.got == ["run1", "run0 4", "run2"]
    assert sender.close() == set()


def test_an_action_that_may_wait_is_done_when_its_time_has_come(there):
    sender = Sender(there.why_unreachable, "there")
    begun = time.monotonic()
    sender.send("run0", there.take("run0"), within_s=0.2)
    wait_for(lambda: there.got == ["run0"])
    assert time.monotonic() - begun >= 0.2
    assert sender.close() == set()


def test_what_may_wait_is_due_at_once_for_a_newer_action_that_may_not_and_at_the_end(there):
    sender = Sender(there.why_unreachable, "there")
    sender.send("run0", there.take("run0 epoch"), within_s=600.0)
    sender.send("run1", there.take("run1 epoch"), within_s=600.0)
    sender.send("run0", there.take("run0 end"))
    wait_for(lambda: there.got == ["run0 end"])
    assert sender.close() == set()
    assert there.got == ["run0 end", "run1 epoch"]


def test_what_could_not_be_sent_is_sent_when_the_other_side_is_back_without_being_told(there, quick, caplog):
    sender = Sender(there.why_unreachable, "there")
    there.gone = "nobody at home"
    with caplog.at_level(logging.WARNING):
        for epoch in range(3):
            sender.send("run0", there.take(f"run0 {epoch}"))
            sender.send("run1", there.take(f"run1 {epoch}"))
        wait_for(lambda: there.asked > 3)
    assert there.got == []
    there.gone = ""
    wait_for(lambda: len(there.got) == 2)
    assert there.got == ["run0 2", "run1 2"]
    assert [record.getMessage() for record in caplog.records] == [
        "no tracking at there, which no run waits for: nobody at home"
    ]
    assert sender.close() == set()


def test_pauses_double_up_to_some_minutes_and_differ():
    for misses, longest in ((1, 1.0), (2, 2.0), (5, 16.0), (9, 256.0), (10, LONGEST_S), (10_000, LONGEST_S)):
        drawn = {pause_s(misses) for _ in range(50)}
        assert len(drawn) == 50
        assert longest / 2 <= min(drawn) and max(drawn) <= longest


def test_closing_does_not_wait_for_a_side_that_is_gone(there, monkeypatch):
    monkeypatch.setattr(module, "FIRST_S", 60.0)
    sender = Sender(there.why_unreachable, "there")
    there.gone = "nobody at home"
    sender.send("run0", there.take("run0"))
    wait_for(lambda: there.asked == 1)  # and now it pauses
    sender.send("run1", there.take("run1"))
    begin = time.monotonic()
    assert sender.close() == {"run0", "run1"}
    assert time.monotonic() - begin < 30.0, "the shortest pause"
    assert there.asked == 2, "a last try"


def test_closing_waits_no_longer_than_it_is_told(there):
    sender = Sender(there.why_unreachable, "there")
    go = threading.Event()
    sender.send("hangs", go.wait)
    sender.send("run0", there.take("run0"))
    assert sender.close(timeout_s=0.05) == {"hangs", "run0"}
    go.set()


def test_an_action_in_trouble_of_its_own_is_tried_again_and_then_left_and_holds_up_nobody(there, caplog):
    sender = Sender(there.why_unreachable, "there")
    tried = []

    def refused():
        tried.append(1)
        raise ValueError("no such\n  run")

    with caplog.at_level(logging.WARNING):
        sender.send("run0", refused)
        sender.send("run1", there.take("run1"))
        wait_for(lambda: len(tried) == 2 and there.got == ["run1"])
        sender.send("run0", refused)
        sender.send("run2", there.take("run2"))
        assert sender.close() == {"run0"}
    assert there.got == ["run1", "run2"]
    assert [record.getMessage() for record in caplog.records] == ["tracking at there: run0: ValueError: no such run"]


def test_an_action_that_is_tried_again_keeps_its_place(there):
    sender = Sender(there.why_unreachable, "there")
    begun, go = threading.Event(), threading.Event()
    passing = iter([ValueError("database is locked")])

    def opens():
        begun.set()
        go.wait(10.0)
        for error in passing:
            raise error
        there.got.append("open")

    sender.send("open", opens)
    assert begun.wait(10.0)
    sender.send("close", there.take("close"))
    go.set()
    assert sender.close() == set()
    assert there.got == ["open", "close"]


def test_what_was_left_and_then_succeeds_is_no_longer_missing(there):
    sender = Sender(there.why_unreachable, "there")
    sender.send("run0", lambda: 1 / 0)
    wait_for(lambda: there.asked == 2)
    sender.send("run0", there.take("run0"))
    assert sender.close() == set()
