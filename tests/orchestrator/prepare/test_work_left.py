"""What is left of a study: its phases in order, the structures and epochs that trials can have."""

import random

import pytest

from ablations.study.early_stopping import passes_median, passes_rung
from ablations.study.plan import expand
from ablations.study.search import Search
from orchestrator.prepare.pace import structure
from orchestrator.prepare.work_left import DRAWS, MOST_STRUCTURES, Range, phases, trial_epochs
from orchestrator.state.study_state import StudyState
from orchestrator.store.ledger import Ledger
from orchestrator.terminal.plan_listing import epochs_to_train
from tests.orchestrator.prepare.earlier_runs import BASE, CPU, make, of, record, searching


def test_what_is_left_comes_in_the_order_in_which_it_waits(store):
    study = make()
    teacher, arms = phases(StudyState(study, Ledger(store.ledger)))
    assert [run.epochs.most for run in teacher.runs] == [4]
    assert [run.epochs for run in arms.runs] == [Range(10, 10, 10)] * 4
    record(store, study, CPU)
    (arms,) = phases(StudyState(study, Ledger(store.ledger)))
    assert [run.config.seed for run in arms.runs] == [1, 1]


def test_a_run_that_a_kill_ended_has_its_last_epochs_left_and_one_that_failed_all(store):
    study, ledger = make(), Ledger(store.ledger)
    who = {
        run.label: {"run_id": f"r{n}", "key": run.key, "study": "s", "arm": run.arm, "seed": run.seed}
        for n, run in enumerate(expand(study))
    }
    for label, epochs, end in (
        ("csf seed 0", 7, None),
        ("csf seed 1", 10, "interrupted"),
        ("student alone seed 0", 3, "failed"),
    ):
        ledger.append({"event": "started", **who[label]})
        ledger.append_epochs(who[label]["run_id"], [{"epoch": n, "val/miou": 1.0} for n in range(1, epochs + 1)])
        if end:
            ledger.append({"event": end, **who[label], "cause": "lost"})
    state = StudyState(study, Ledger(store.ledger))
    _, arms = phases(state, retry_failed=True)
    left = {f"{'csf' if run.config.active else 'alone'} {run.config.seed}": run for run in arms.runs}
    assert {name: run.epochs.most for name, run in left.items()} == {
        "csf 0": 3,
        "csf 1": 1,
        "alone 0": 10,
        "alone 1": 10,
    }
    assert {name: run.done for name, run in left.items()} == {"csf 0": 7, "csf 1": 9, "alone 0": 0, "alone 1": 0}
    assert {bool(run.teacher) for run in arms.runs if run.config.active} == {True}
    assert epochs_to_train(state, [run for run in state.runs if not run.finished]) == "28 epochs"


def test_teachers_of_one_name_have_a_pace_each(store):
    study = make(variants={"small": {}, "large": {"data.size": [128, 256]}})
    teachers, _ = phases(StudyState(study, Ledger(store.ledger)))
    assert {run.structure for run in teachers.runs} == {structure(run.config) for run in teachers.runs}
    assert len({run.structure for run in teachers.runs}) == 2


def test_later_looks_may_never_come(store):
    study = make(seeds={"looks": [4, 6, 9], "until": "decided"})
    _, *looks = phases(StudyState(study, Ledger(store.ledger)))
    assert [len(look.runs) for look in looks] == [8, 4, 6]
    assert [{run.epochs.least for run in look.runs} for look in looks] == [{10}, {0}, {0}]
    assert {run.epochs.most for look in looks for run in look.runs} == {10}


def test_every_tuned_variant_searches_before_its_seeds(store):
    base = {**BASE, "optim": {**BASE["optim"], "epochs": 9}}
    tune = {"trials": 5, "stop": "asha", "space": {"distill.csf.weight": {"log": [0.1, 10.0]}}}
    study = make(base=base, tune_each=tune)
    _, search, arms = phases(StudyState(study, Ledger(store.ledger)))
    assert len(search.runs) == 5
    assert len(arms.runs) == 4
    assert all("csf" in run.config.active and run.epochs.most == 9 for run in search.runs)


def test_a_batch_bounds_what_a_deterministic_search_runs_at_once(store):
    search = {"trials": 6, "deterministic": True, "batch": 3, "space": {"optim.lr": {"log": [1.0e-4, 1.0e-2]}}}
    _, trials = phases(StudyState(make(variants=None, search=search, seeds=1), Ledger(store.ledger)))
    assert (trials.at_once, len(trials.runs)) == (3, 6)


def test_a_structure_that_no_draw_has_is_asked_for_too(store):
    names = [f"segformer_b{i}" for i in range(6)] + ["segformer_tiny", "segformer_mini"]
    study = searching({"student.name": {"choice": names}})
    todo = phases(StudyState(study, Ledger(store.ledger)))
    assert {run.config.student.name for run in todo[-1].possible} == set(names)
    assert {run.config.student.name for run in todo[-1].runs} < set(names)
    assert of(study, store, CPU).why.startswith("no earlier run of 9 of 9 structures"), "the teacher's, and all these"


BOTH = {"base": {**BASE, "distill": {"csf": {}, "pea": {}}}, "requires": {"distill.pea": ["distill.csf"]}}


@pytest.mark.parametrize(
    ("space", "more", "structures"),
    [
        ({"optim.lr": {"log": [1.0e-4, 1.0e-2]}, "distill.csf.weight": {"log": [0.1, 1.0]}}, {}, {1}),
        (
            {
                "distill.csf.weight": {"choice": [0.0, 1.0]},
                "distill.csf.options.norm": {"choice": ["layer", "reference"]},
            },
            {},
            {3},
        ),
        # csf's absence contradicts the pea of the base, until that is absent too
        ({"distill.csf": {"choice": [None, {}]}, "distill.pea": {"choice": [None, {}]}}, BOTH, {3}),
        (
            {"optim.global_batch": {"choice": [4 * k for k in range(1, 80)]}},
            {},
            range(MOST_STRUCTURES, MOST_STRUCTURES + DRAWS + 1),
        ),
    ],
    ids=["one", "conditional", "contradictory", "too many"],
)
def test_the_structures_that_a_trial_can_have(store, space, more, structures):
    study = searching(space, **more)
    *_, search = phases(StudyState(study, Ledger(store.ledger)))
    assert len({run.structure for run in search.possible}) in structures


def test_the_epochs_of_a_trial_lie_between_the_first_rung_and_all():
    space = {"optim.lr": {"log": [1.0e-4, 1.0e-2]}}
    assert trial_epochs(Search(trials=20, space=space), 27, 20) == (27, 27, 27)
    asha = trial_epochs(Search(trials=20, space=space, stop="asha"), 27, 20)
    assert asha.least == 1 + 26 / 20, "one goes on to the end"
    assert asha.most == 27
    assert asha.least < asha.likely < 27
    median = trial_epochs(Search(trials=20, space=space, stop="median", min_epochs=3), 27, 20)
    assert median.least == pytest.approx((5 * 27 + 15 * 3) / 20)


@pytest.mark.parametrize("words", [{"stop": "asha"}, {"stop": "asha", "brackets": 2}, {"stop": "median"}], ids=str)
def test_trials_are_likely_to_train_what_the_rules_let_them(words):
    search = Search(trials=30, space={"optim.lr": {"log": [1.0e-4, 1.0e-2]}}, **words)
    rng, spent = random.Random(1), 0
    for _ in range(40):
        scores = [rng.random() for _ in range(30)]
        curves = {bracket: [] for bracket in range(search.brackets)}
        for number, score in enumerate(scores):
            bracket, curve = search.bracket(number), {}
            others, rungs = curves[bracket], search.rungs(27, bracket)
            for epoch in range(1, 28):
                curve[epoch] = score
                at_rung = [other[epoch] for other in others if epoch in other]
                if epoch in rungs and not passes_rung(score, at_rung, search.eta):
                    break
                whole = [other for other in others if 27 in other]
                by_median = search.stop == "median" and search.min_epochs <= epoch < 27
                if by_median and not passes_median(curve, epoch, whole):
                    break
            others.append(curve)
            spent += len(curve)
    assert trial_epochs(search, 27, 30).likely == pytest.approx(spent / (40 * 30), rel=0.2)
