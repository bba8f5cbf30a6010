"""A bundle's ledger is of one study, and says of it what the store's ledger says."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from ablations.study.plan import expand
from orchestrator.report import bundle
from orchestrator.report.table import table
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from tests.orchestrator.state.ledgers import MINE, OTHER, WHOLE, Written, make, n_of, sources_of, worlds


def printed(state: StudyState) -> tuple[Any, ...]:
    """The table, as far as it is printed."""
    shown = table(state)
    return shown.title, [row.cells for row in shown.rows], shown.notes


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=20)
@given(worlds([WHOLE], old=False))
def test_a_bundle_says_of_its_study_what_its_store_says(world):
    study, _, written, _ = world
    with tempfile.TemporaryDirectory() as folder:
        state = StudyState(study, written.ledger(Path(folder) / "store"))
        ledger = Written(list(bundle._events(state))).ledger(Path(folder) / "unpacked")
        assert printed(StudyState(study, ledger)) == printed(state)


@pytest.mark.slow
def test_a_bundle_holds_the_runs_that_another_study_has_finished(tmp_path):
    study, written = make(seeds=2), Written()
    first, second = expand(study)
    now = sources_of([first.config], 1, "A", "V")
    written.launched(MINE, 1, now)
    written.run(first, now)
    written.launched(OTHER, 1, now)
    written.run(second, now, study=OTHER)
    store = Store(tmp_path / "store")
    state = StudyState(study, written.ledger(store.root))
    assert n_of(state, "alone") == "2"
    bundle.pack(study, yaml.safe_dump(study.model_dump(mode="json", exclude_unset=True)), store, tmp_path / "b.tar.gz")
    with bundle.unpacked(tmp_path / "b.tar.gz") as (again, unpacked):
        assert printed(StudyState(again, Ledger(unpacked.ledger))) == printed(state)
