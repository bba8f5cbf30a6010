"""Ledgers whose runs are of several data, weights, numerics or studies: what counts, and why the rest does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.study.plan import expand
from orchestrator.report.table import table
from orchestrator.state.study_state import StudyState
from tests.orchestrator.state.ledgers import MINE, OTHER, VARIANTS, WHOLE, Written, make, n_of, sources_of
from trainer.config import NUMERICS_VERSION, Sources


class Mixed:
    """A study of six seeds, all finished of one kind and then three of another."""

    def __init__(self, folder: Path, first: Sources, then: Sources, *, said: bool, facts: tuple[str, ...] = WHOLE):
        self.study, self.written = make(["alone", "started"], 6), Written()
        for sources, seeds in ((first, range(6)), (then, range(3))):
            self.written.launched(MINE, sources.numerics, sources if said else None)
            for run in expand(self.study):
                if run.seed in seeds:
                    self.written.run(run, sources, facts=facts)
        self.state = StudyState(self.study, self.written.ledger(folder))


def kinds(which: str) -> tuple[Sources, Sources]:
    """Sources, and sources that differ in what is named."""
    configs = [run.config for run in expand(make(VARIANTS))]
    of = {
        "numerics": (NUMERICS_VERSION - 1, "A", "V"),
        "data": (NUMERICS_VERSION, "A", "V"),
        "weights": (NUMERICS_VERSION, "A", "V"),
    }
    then = {
        "numerics": (NUMERICS_VERSION, "A", "V"),
        "data": (NUMERICS_VERSION, "B", "V"),
        "weights": (NUMERICS_VERSION, "A", "W"),
    }
    return sources_of(configs, *of[which]), sources_of(configs, *then[which])


MIXED = {"data": "other data", "numerics": f"numerics version {NUMERICS_VERSION - 1}"}


@pytest.mark.parametrize("said", [True, False], ids=["sources recorded", "sources inferred"])
@pytest.mark.parametrize("which", MIXED)
def test_a_row_is_of_what_was_read_last_and_the_rest_is_named(tmp_path, which, said):
    state = Mixed(tmp_path, *kinds(which), said=said).state
    assert [n_of(state, arm) for arm in ("alone", "started")] == ["3/6", "3/6"]
    assert table(state).explained[0] == f"Not counted: 3 of 6 seeds are of {MIXED[which]}: alone, started."


@pytest.mark.parametrize("said", [True, False], ids=["sources recorded", "sources inferred"])
def test_other_weights_take_seeds_from_the_arms_that_start_from_them(tmp_path, said):
    state = Mixed(tmp_path, *kinds("weights"), said=said).state
    assert [n_of(state, arm) for arm in ("alone", "started")] == ["6", "3/6"]
    assert table(state).explained[0] == "Not counted: 3 of 6 seeds are of other weights: started."


@pytest.mark.parametrize(
    "facts",
    [("data", "environment"), ("config", "data", "environment"), ("data", "weights", "environment")],
    ids=" and ".join,
)
@pytest.mark.parametrize("which", MIXED)
def test_ledgers_that_lack_configs_or_weights_are_not_mixed_either(tmp_path, which, facts):
    state = Mixed(tmp_path, *kinds(which), said=False, facts=facts).state
    assert [n_of(state, arm) for arm in ("alone", "started")] == ["3/6", "3/6"]
    assert table(state).explained[0] == f"Not counted: 3 of 6 seeds are of {MIXED[which]}: alone, started."


def test_going_back_to_the_first_data_counts_its_runs_again(tmp_path):
    first, then = kinds("data")
    mixed = Mixed(tmp_path, first, then, said=True)
    assert n_of(StudyState(mixed.study, mixed.state.ledger, first), "alone") == "6"
    mixed.written.launched(MINE, first.numerics, first)
    state = StudyState(mixed.study, mixed.written.ledger(tmp_path))
    assert n_of(state, "alone") == "6"
    assert state.uncounted() == []


def test_a_single_seed_is_spoken_of_as_one(tmp_path):
    first, then = kinds("data")
    study, written = make(seeds=1), Written()
    written.run(*expand(study), first)
    written.launched(MINE, then.numerics, then)
    state = StudyState(study, written.ledger(tmp_path))
    assert state.uncounted() == ["Not counted: 1 of 1 seed is of other data: alone."]
    assert [run.finished for run in state.runs] == [False]


def test_runs_of_another_installation_are_counted_and_it_is_said(tmp_path):
    configs = [run.config for run in expand(make())]
    earlier = sources_of(configs, NUMERICS_VERSION + 1, "A", "V")
    study, written = make(seeds=2), Written()
    written.launched(MINE, earlier.numerics, earlier)
    for run in expand(study):
        written.run(run, earlier)
    state = StudyState(study, written.ledger(tmp_path))
    assert n_of(state, "alone") == "2"
    assert state.uncounted() == [
        f"Computed by numerics version {NUMERICS_VERSION + 1}; this installation is version {NUMERICS_VERSION}, and "
        "`transkd run` would train these runs again."
    ]


def test_what_another_study_made_of_other_data_says_nothing_of_these_seeds(tmp_path):
    first, then = kinds("data")
    study, written = make(seeds=2), Written()
    for run in expand(study):
        written.run(run, first, study=OTHER)
    written.launched(MINE, then.numerics, then)
    state = StudyState(study, written.ledger(tmp_path))
    assert n_of(state, "alone") == "0/2"
    assert state.uncounted() == []


def test_what_another_study_left_unfinished_is_no_run_of_this_one(tmp_path):
    study, written = make(seeds=4), Written()
    now = sources_of([run.config for run in expand(study)], 1, "A", "V")
    ends = [("failed", "nan"), ("failed", "lost"), ("running", ""), ("interrupted", "")]
    for run, (status, cause) in zip(expand(study), ends, strict=True):
        written.run(run, now, status, cause=cause, study=OTHER)
    state = StudyState(study, written.ledger(tmp_path), now)
    assert [run.run.status for run in state.runs] == ["failed", "missing", "missing", "missing"]
    assert [state.is_final_failure(run) for run in state.runs] == [True, False, False, False]


def test_a_run_whose_sources_are_not_known_is_missing_and_unchecked_where_its_config_has_finished(tmp_path):
    study, written = make(["alone", "started"], 1), Written()
    now = sources_of([run.config for run in expand(study)], 1, "A", "V")
    for run in expand(study):
        written.run(run, now)
    ledger = written.ledger(tmp_path)
    for lacking, unchecked in (
        (Sources(1, now.data, now.weights), []),
        (Sources(1, now.data, {}), ["started"]),
        (Sources(1, {}, now.weights), ["alone", "started"]),
    ):
        state = StudyState(study, ledger, lacking)
        assert [run.plan.arm for run in state.unchecked] == unchecked
        assert [run.plan.arm for run in state.runs if run.finished] == [
            run.plan.arm for run in state.runs if run.plan.arm not in unchecked
        ]
