"""The runs of a tuned study follow from the ledger alone, wherever its driver was killed."""

import pytest

from ablations.study.plan import search_identity, trial_run
from ablations.study.schema import read
from ablations.study.variant_search import searches
from orchestrator.report.table import table
from orchestrator.state.progress import study_status
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger

STUDY = """
name: tuned
base:
  data: {select: 0.1}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 3}}
  optim: {epochs: 9}
  distill: {csf: {}, pea: {}}
variants:
  student alone: {distill: {}}
  TransKD-Base: {}
seeds: [0, 1]
tune_each:
  trials: 3
  space:
    optim.lr: {log: [1.0e-4, 1.0e-2]}
    distill.pea.weight: {log: [1.0e-2, 10.0]}
"""
POINTS = [{"optim.lr": 1.0e-3, "distill.pea.weight": w} for w in (1.0, 2.0, 4.0)]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def events(study, arm, scores):
    """A search's events: each trial is proposed, and finishes with its score, or fails where it has none."""
    search = searches(study)[arm]
    for number, score in enumerate(scores):
        values = {path: POINTS[number][path] for path in search.search.space}
        run = trial_run(search, number, values)
        who = {"study": study.name, "arm": run.arm, "seed": run.seed, "role": "trial", "key": run.key}
        who["run_id"] = f"{arm} {number}"
        yield {"event": "trial", **who, "search": search_identity(search), "number": number, "values": values}
        yield {"event": "started", **who}
        last = {"epoch": 9, "select/miou": score, "val/miou": 1.0}
        yield (
            {"event": "failed", **who, "reason": "loss is nan"}
            if score is None
            else {
                "event": "finished",
                **who,
                "last": last,
                "best": last,
            }
        )


def test_an_arm_is_its_winner_from_the_event_on_that_ends_its_search(store):
    study, ledger = read(STUDY, "tuned.yaml"), Ledger(store.ledger)
    whole = [*events(study, "student alone", [30.0, 31.0, 29.0]), *events(study, "TransKD-Base", [30.0, 29.0, 31.0])]
    for written, event in enumerate(whole, 1):
        ledger.append(event)
        runs = [run.plan for run in StudyState(study, Ledger(store.ledger)).runs]
        settled = {run.arm for run in runs if run.role == "arm" and not run.awaits}
        ended = {"student alone": written >= 9, "TransKD-Base": written >= 18}
        assert settled == {arm for arm, over in ended.items() if over}
    weights = {run.config.distill["pea"].weight for run in runs if run.arm == "TransKD-Base"}
    assert weights == {4.0}, "its third trial was best"
    assert study_status(StudyState(study, ledger), {}).counts == {"finished": 6, "missing": 5}
    fewer = read(STUDY.replace("trials: 3", "trials: 2"), "tuned.yaml")
    weights = {
        run.config.distill["pea"].weight
        for run in (run.plan for run in StudyState(fewer, ledger).runs)
        if run.arm == "TransKD-Base"
    }
    assert weights == {1.0}, "the third trial is none of a search of two"


def test_a_trial_that_is_proposed_and_not_started_runs_while_its_study_has_a_driver(store):
    study, ledger = read(STUDY, "tuned.yaml"), Ledger(store.ledger)
    ledger.append(next(events(study, "student alone", [30.0])))
    state = StudyState(study, ledger)
    for drivers, found in (({study.name: "me"}, "running"), ({"other": "you"}, "interrupted"), ({}, "interrupted")):
        assert study_status(state, drivers).counts == {found: 1, "missing": 10}


def test_a_search_of_which_nothing_finished_leaves_its_arm_without_a_score(store):
    study, ledger = read(STUDY, "tuned.yaml"), Ledger(store.ledger)
    for event in [*events(study, "student alone", [30.0]), *events(study, "TransKD-Base", [None, None, None])]:
        ledger.append(event)
    assert StudyState(study, ledger).tuned["student alone"].left == 2
    notes = table(StudyState(study, ledger)).explained
    assert any("student alone" in note and "its search has ended 1 of 3 trials" in note for note in notes)
    assert any("TransKD-Base" in note and "no trial of its search finished" in note for note in notes)
    assert any(note.startswith("Unequal: 3 of 3 trials of TransKD-Base failed") for note in notes)


def test_trials_of_another_variant_or_study_are_not_counted(store):
    study, ledger = read(STUDY, "tuned.yaml"), Ledger(store.ledger)
    other = study.model_copy(update={"name": "other"})
    for event in [*events(other, "student alone", [1.0, 2.0, 3.0]), *events(study, "TransKD-Base", [1.0])]:
        ledger.append(event)
    assert {arm: found.left for arm, found in StudyState(study, ledger).tuned.items()} == {
        "student alone": 3,
        "TransKD-Base": 2,
    }
