"""The journal and the ledger under any sequence of appends, kills, full disks, restarts, readers and damage.

The model is the list of the events that are to be there, folded anew at each step by the shortest code that says what
each field means. Files are real, and only `os.write` is replaced, to write a part of what it is given.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orchestrator.store import journal
from orchestrator.store.full_disk import StoreFull
from orchestrator.store.journal import Reader, Writer
from orchestrator.store.ledger import Ledger
from orchestrator.store.ledger_run import STATUS, Membership
from trainer.config import UserError, printable

RUNS = ("a", "b", "ü")
TIMES = st.integers(0, 59).map("2026-01-01T00:00:{:02d}".format)  # drawn for each event, so the clock goes back as well
TEXTS = st.text(max_size=8) | st.sampled_from([5_000, 20_000]).map(lambda size: "é" * size)
NUMBERS = st.floats(width=32) | st.integers(-3, 3)
EPOCHS = st.integers(1, 5).map(float)
CUTS = st.integers(0, 200) | st.integers(-12, 0)
"""How many bytes of a write get through; below 0, how many do not."""


def metrics():
    return st.fixed_dictionaries({"epoch": EPOCHS}, optional={"loss": NUMBERS, "val/miou": NUMBERS})


def of_a_run(kind, run_ids, always=None, **more):
    """Events of one kind; the fields in `more` are there, or not, and those in `always` are."""
    needed = {"event": st.just(kind), "run_id": run_ids, "time": TIMES, **(always or {})}
    return st.fixed_dictionaries(needed, optional=more)


def events(run_ids):
    """Events about these runs, as the driver writes them."""
    reason = {"reason": TEXTS, "cause": st.sampled_from(["nan", "lost"])}
    place = {
        "key": TEXTS,
        "study": st.sampled_from(["s", "t"]),
        "arm": st.just("arm"),
        "seed": st.integers(0, 1),
        "role": st.sampled_from(["arm", "trial"]),
        "environment": st.dictionaries(st.sampled_from(["device", "git"]), TEXTS),
    }
    kept = {
        "data": st.dictionaries(st.sampled_from(["train", "val"]), TEXTS),
        "weights": st.dictionaries(st.just("student"), TEXTS),
        "artifacts": st.dictionaries(st.just("folder"), TEXTS),
        "imported": TEXTS,
    }
    result = {
        "best": metrics(),
        "seconds": st.floats(0, 9),
        "complexity": st.just({"params_m": 3.7}),
    }
    epochs = st.fixed_dictionaries({"event": st.just("epoch"), "run_id": run_ids, "time": TIMES, "metrics": metrics()})
    notes = st.fixed_dictionaries({"event": st.just("note"), "run_id": run_ids, "time": TIMES, "text": TEXTS})
    return st.one_of(
        of_a_run("started", run_ids, **place, config=st.just({"optim": {"lr": 0.1}})),
        epochs,
        epochs,
        notes,
        of_a_run("retried", run_ids, **reason, launch=st.integers(1, 2), micro_batch=st.just(1)),
        of_a_run("finished", run_ids, {"last": metrics()}, **result, **place, **kept),
        of_a_run("failed", run_ids, **reason),
        of_a_run("stopped", run_ids, last=metrics()),
        of_a_run("interrupted", run_ids),
        of_a_run("reused", run_ids, **place),
    )


DRIVERS = st.fixed_dictionaries(
    {"event": st.just("study"), "time": TIMES, "text": TEXTS},
    optional={"environment": st.dictionaries(st.just("python"), TEXTS)},
)
EVENTS = events(st.sampled_from(RUNS)) | DRIVERS
GARBAGE = st.one_of(
    st.binary(min_size=1, max_size=20).filter(lambda line: b"\n" not in line),
    st.sampled_from([b"{}", b"[]", b"3", b"null", b'{"event"', b'{"event": "sta', b'{"run_id": "a"}', b'"event"']),
)


def as_read(event):
    """An event after its way through a file."""
    return json.loads(json.dumps(event), parse_constant=lambda _: None)


def numbers(found):
    return {name: math.nan if value is None else value for name, value in found.items()}


def latest(events, name, missing):
    return next((event[name] for event in reversed(events) if name in event), missing)


def environment(events, run_id):
    """That of the driver under which a run began last, and over it what the run's own events say since."""
    driver, found = {}, {}
    for event in events:
        if event["event"] == "study":
            driver = event.get("environment", {})
        elif event.get("run_id") == run_id and event["event"] in STATUS:
            if event["event"] == "started":
                found = dict(driver)
            found |= event.get("environment", {})
    return found


def folded(events):
    """By run, in the order of their first events, what the ledger is to say of it: all read anew for each field."""
    found = {}
    for run_id in dict.fromkeys(event["run_id"] for event in events if "run_id" in event):
        own = [event for event in events if event.get("run_id") == run_id]
        epochs = [event for event in own if event["event"] == "epoch"]
        others = [event for event in own if event["event"] != "epoch"]
        turns = [event for event in others if event["event"] in STATUS]
        places = [
            {k: event[k] for k in ("study", "arm", "seed", "role") if k in event}
            for event in others
            if "study" in event
        ]
        by_number = {event["metrics"]["epoch"]: event for event in epochs}
        found[run_id] = {
            "key": latest(others, "key", ""),
            "status": STATUS[turns[-1]["event"]] if turns else "missing",
            "attempts": sum(event["event"] in ("started", "retried") for event in turns),
            "last": numbers(latest(turns, "last", {})),
            "best": numbers(latest(turns, "best", {})),
            "complexity": latest(turns, "complexity", {}),
            "seconds": latest(turns, "seconds", 0.0),
            "reason": printable(latest(turns[-1:], "reason", "")),
            "cause": latest(turns[-1:], "cause", ""),
            "changed": latest(turns[-1:], "time", ""),
            "members": list(dict.fromkeys(Membership(**place) for place in places)),
            "epochs": [numbers(by_number[number]["metrics"]) for number in sorted(by_number)],
            "reported": {number: event["time"] for number, event in by_number.items()},
            "config": latest(turns, "config", {}),
            "data": latest(turns, "data", {}),
            "weights": latest(turns, "weights", {}),
            "artifacts": latest(turns, "artifacts", {}),
            "imported": latest(turns, "imported", ""),
            "environment": environment(events, run_id),
            "notes": [event["text"] for event in others if event["event"] == "note"],
            "retries": [
                {name: event[name] for name in ("launch", "cause", "micro_batch") if name in event}
                | ({"reason": printable(event["reason"])} if "reason" in event else {})
                for event in turns
                if event["event"] == "retried"
            ],
            "failures": Counter(e["cause"] for e in turns if e["event"] in ("retried", "failed") and "cause" in e),
        }
    return found


def is_event(line):
    with contextlib.suppress(ValueError):
        event = json.loads(line)
        return isinstance(event, dict) and "event" in event
    return False


class Killed(BaseException):
    """The process ends here."""


class Following:
    """A reader that has been there for a while, and all that it was given."""

    def __init__(self, path):
        self.reader, self.events = Reader(path), []

    def read(self):
        self.events.extend(self.reader.read())
        return self.events


class JournalMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "store" / "ledger.jsonl"
        self.ledger = Ledger(self.path)
        self.events = []
        self.readers = [Following(self.path)]
        self.chunk = journal.CHUNK

    def teardown(self):
        try:
            self.without_its_torn_events_it_is_damaged()
        finally:
            journal.CHUNK = self.chunk
            shutil.rmtree(self.folder)

    @initialize(chunk=st.sampled_from([1, 300, 1 << 20]))
    def lines_are_parsed_one_by_one_or_many_at_once(self, chunk):
        journal.CHUNK = chunk

    @rule()
    def restart(self):
        self.ledger = Ledger(self.path)

    @rule()
    def one_more_reader(self):
        self.readers.append(Following(self.path))

    @rule(event=EVENTS)
    def append(self, event):
        self.ledger.append(event)
        self.events.append(as_read(event))

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def another_process_appends_the_same_again(self, data):
        self.restart()
        self.append(data.draw(st.sampled_from(self.events)))

    @rule(run_id=st.sampled_from(RUNS), found=st.lists(metrics(), max_size=4, unique_by=lambda epoch: epoch["epoch"]))
    def append_the_epochs_that_are_missing(self, run_id, found):
        there = [epoch["epoch"] for epoch in folded(self.events).get(run_id, {"epochs": []})["epochs"]]
        before = [dict(run.reported) for run in [self.ledger.outcomes().get(run_id)] if run]
        self.ledger.append_epochs(run_id, found)
        new = [epoch for epoch in found if epoch["epoch"] not in there]
        run = self.ledger.outcomes().get(run_id)
        times = run.reported if run else {}
        assert all(times[number] == time for one in before for number, time in one.items())
        self.events += [
            as_read({"event": "epoch", "run_id": run_id, "metrics": epoch, "time": times[epoch["epoch"]]})
            for epoch in new
        ]

    @rule(event=EVENTS, cut=CUTS)
    def a_kill_within_a_write(self, event, cut):
        with pytest.raises(Killed), self._cut(cut, Killed()) as done:
            self.ledger.append(event)
        self.restart()
        if done[0]:
            self.events.append(as_read(event))

    @rule(event=EVENTS, cut=CUTS)
    def a_full_disk_and_the_same_writer_goes_on(self, event, cut):
        with pytest.raises(StoreFull), self._cut(cut, OSError(28, "No space left on device")) as done:
            self.ledger.append(event)
        if done[0]:
            self.events.append(as_read(event))

    @rule(event=EVENTS, cut=CUTS)
    def readers_read_in_the_middle_of_a_write(self, event, cut):
        def look():
            for reader in self.readers:
                assert reader.read() == self.events + [as_read(event)] * done[0]
            assert self._runs() == folded(self.events + [as_read(event)] * done[0])

        with self._cut(cut, look) as done:
            self.ledger.append(event)
        self.events.append(as_read(event))

    @rule(data=st.data())
    def a_reader_reads(self, data):
        following = data.draw(st.sampled_from(self.readers))
        assert following.reader.continues() and following.read() == self.events

    @rule()
    def the_file_is_replaced_by_its_copy(self):
        if self.path.exists():
            shutil.copyfile(self.path, self.folder / "copy")
            (self.folder / "copy").replace(self.path)
            assert not any(reader.reader.continues() for reader in self.readers if reader.events)
            self.readers = [Following(self.path)]

    @rule(garbage=GARBAGE.filter(lambda line: line.strip() and not is_event(line)), event=EVENTS, torn=st.booleans())
    def a_damaged_line_in_the_middle(self, garbage, event, torn):
        """With a `torn` event behind it is skipped; without, it is refused by its number, whoever reads."""
        self.append(event)
        size = self.path.stat().st_size
        damaged = self.path.read_bytes().count(b"\n") + 1
        says = b'{"event": "torn", "time": "2026-01-02T00:00:00"}\n' if torn else b""
        with self.path.open("ab") as file:
            file.write(garbage + b"\n" + says + json.dumps(as_read(event)).encode() + b"\n")
        if torn:
            self.events.append(as_read(event))
            return
        named = re.escape(f"{self.path}:{damaged} must be a JSON event but is damaged")
        for reader in [*self.readers, Following(self.path)]:
            for _ in range(2):
                with pytest.raises(UserError, match=named):
                    reader.read()
        with pytest.raises(UserError, match=named):
            self.ledger.outcomes()
        os.truncate(self.path, size)
        self.readers = [Following(self.path)]

    @invariant()
    def the_ledger_says_what_the_events_say(self):
        told = folded(self.events)
        assert self._runs() == told
        assert list(self.ledger.outcomes()) == list(told)
        assert list(self.ledger.events()) == [event for event in self.events if event["event"] != "epoch"]
        for run_id, run in told.items():
            finished = self.ledger.finished(run_id)
            assert (finished is not None) == (run["status"] == "finished")

    @invariant()
    def a_reader_from_the_start_finds_every_event_once(self):
        assert Following(self.path).read() == self.events

    def without_its_torn_events_it_is_damaged(self):
        if not self.path.exists():
            return
        self.append({"event": "note", "run_id": "a", "text": "the end", "time": "2026-01-02T00:00:00"})
        lines = self.path.read_bytes().splitlines(keepends=True)
        torn = [line for line in lines if is_event(line) and json.loads(line)["event"] == "torn"]
        self.path.write_bytes(b"".join(line for line in lines if line not in torn))
        if torn:
            first = 1 + next(i for i, line in enumerate(lines) if line.strip() and not is_event(line))
            with pytest.raises(UserError, match=re.escape(f"{self.path}:{first} must be")):
                self.ledger.outcomes()

    def _runs(self):
        runs = self.ledger.outcomes()
        names = next(iter(folded([{"event": "note", "run_id": "", "text": ""}]).values()))
        return {run_id: {name: getattr(run, name) for name in names} for run_id, run in runs.items()}

    @contextlib.contextmanager
    def _cut(self, cut, then):
        """The next write stops after `cut` bytes: `then` is raised, or called before the rest is written. What is
        yielded says whether the event is whole by then, its newline aside."""
        whole, real = [False], os.write

        def write(handle, data):
            patched.stop()
            count = min(cut, len(data)) if cut > 0 else max(0, len(data) + cut)
            real(handle, data[:count])
            whole[0] = count >= len(data) - 1
            if isinstance(then, BaseException):
                raise then
            then()
            return count

        patched = mock.patch.object(os, "write", write)
        patched.start()
        yield whole


@pytest.mark.slow
def test_whatever_happens_the_ledger_is_the_fold_of_its_events():
    run_state_machine_as_test(JournalMachine)


@pytest.mark.slow
def test_whatever_happens_at_length_the_ledger_is_the_fold_of_its_events():
    deep = settings.get_profile("deep")
    run_state_machine_as_test(JournalMachine, settings=settings(deep, max_examples=60, derandomize=True))


@pytest.mark.slow
@given(st.data())
def test_the_events_of_one_run_say_the_same_wherever_those_of_others_stand(tmp_path_factory, data):
    lives = {run_id: data.draw(st.lists(events(st.just(run_id)), max_size=5)) for run_id in RUNS}
    order = [run_id for run_id, life in lives.items() for _ in life]
    folds = []
    for turns in (order, data.draw(st.permutations(order))):
        path = tmp_path_factory.mktemp("store") / "ledger.jsonl"
        left = {run_id: iter(life) for run_id, life in lives.items()}
        writer = Writer(path)
        for run_id in turns:
            writer.append(next(left[run_id]))
        folds.append(Ledger(path).outcomes())
    assert folds[0] == folds[1]
