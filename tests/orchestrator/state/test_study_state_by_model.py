"""A study's state is what a naive model makes of the same ledger, whatever drivers have written into it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from ablations.statistics.seed_looks import due
from orchestrator.report.table import table
from orchestrator.state.study_state import StudyState
from tests.orchestrator.state.ledgers import worlds
from tests.orchestrator.state.naive_state import Expected, expected, known_of, last_sources, notes_of, outcomes_of
from trainer.config import data_key


def assert_is(state: StudyState, found: list[Expected]) -> None:
    """The state says of every run, and of the whole, what the model says."""
    assert [run.plan.key for run in state.runs] == [one.run.key for one in found]
    for run, one in zip(state.runs, found, strict=True):
        assert (run.run_id, run.other) == (one.run_id, one.other), run.label
        assert run.run.status == (one.entry.status if one.entry else "missing"), run.label
        assert run.finished is bool(one.entry and one.entry.status == "finished"), run.label
    outcomes = outcomes_of(found)
    assert {key: (o.status, o.metrics) for key, o in state.outcomes.items()} == {
        key: (o.status, o.metrics) for key, o in outcomes.items()
    }
    now = due(state.study, [one.run for one in found], outcomes)
    assert [run.plan.key for run in state.due] == [run.key for run in now]
    assert {run.plan.key for run in state.unchecked} == {one.run.key for one in found if one.unchecked}
    notes = notes_of(found, {run.key for run in now})
    assert [note for note in state.uncounted() if note.startswith("Not counted")] == notes
    shown = table(state)
    assert [note for note in shown.explained if note.startswith("Not counted")] == notes
    counted = {
        arm: [one.entry for one in found if one.run.arm == arm and one.run in now and one.run.key in outcomes]
        for arm in dict.fromkeys(run.arm for run in now)
    }
    for arm, entries in counted.items():
        finished = [entry for entry in entries if entry.status == "finished"]
        (row,) = [row.values for row in shown.rows if row.values["arm"] == arm and "n" in row.values]
        assert row["n"] == len(finished), arm
        assert len({entry.environment.get("numerics", state.sources.numerics) for entry in finished}) <= 1, arm
        assert len({entry.prints for entry in finished if entry.prints}) <= 1, arm


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=60)
@given(worlds())
def test_a_state_is_what_its_sources_make_of_the_ledger(world):
    study, plan, written, sources = world
    with tempfile.TemporaryDirectory() as folder:
        state = StudyState(study, written.ledger(Path(folder)), sources)
        known = known_of(written.events)
        assert_is(state, expected(plan, known, sources, as_recorded=False))
        for run in state.runs:
            if run.finished:  # what it says it is, as far as it says so, is what is meant
                entry = known[run.run_id]
                assert entry.environment.get("numerics", sources.numerics) == sources.numerics
                assert entry.prints in ((), sources.data[data_key(run.plan.config.data)])


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=60)
@given(worlds())
def test_a_state_of_the_ledger_alone_goes_by_what_was_read_last(world):
    study, plan, written, _ = world
    with tempfile.TemporaryDirectory() as folder:
        state = StudyState(study, written.ledger(Path(folder)))
        known = known_of(written.events)
        sources = last_sources(written.events, known)
        assert state.sources == sources
        assert_is(state, expected(plan, known, sources, as_recorded=True))
