"""Every variant is tuned by a search of its own, all of one budget; winners run on seeds their search has not seen."""

import pytest

from ablations.statistics.outcome import Outcome
from ablations.statistics.winners import Tuned, budgets, winners
from ablations.study.plan import check_space, expand, search_identity, space, trial_run
from ablations.study.trial import Trial
from ablations.study.variant_search import searches
from ablations.table.arms import build_table
from trainer.config import UserError

TUNED = """
variants:
  student alone: {distill: {}}
  + CSF: {distill.pea: null}
  TransKD-Base: {}
seeds: [0, 1]
tune_each:
  trials: 4
  stop: asha
  startup: 2
  space:
    optim.lr: {log: [1.0e-4, 1.0e-2]}
    distill.csf.weight: {log: [1.0e-2, 10.0]}
    distill.pea.weight: {log: [1.0e-2, 10.0]}
"""
SELECT = ", select: 0.1"
WEIGHTS = TUNED.replace("    optim.lr: {log: [1.0e-4, 1.0e-2]}\n", "")


def ended(number, score, state="finished", **values):
    metrics = {} if score is None else {"select/miou": score, "val/miou": 50.0 - score}
    return Trial(number, values, state, 9, metrics, "its reason" if state == "failed" else "")


def tuned(study, **trials):
    """By arm, its search with the trials given by the arm's letter: s(tudent alone), c(sf), b(ase)."""
    arms = {"s": "student alone", "c": "+ CSF", "b": "TransKD-Base"}
    return {arms[k]: Tuned(searches(study)[arms[k]].search, tuple(found)) for k, found in trials.items()}


def test_a_variant_searches_what_applies_to_it_and_all_alike(study):
    found = searches(study(TUNED, data=SELECT))
    assert {arm: list(space(search)) for arm, search in found.items()} == {
        "student alone": ["optim.lr"],
        "+ CSF": ["optim.lr", "distill.csf.weight"],
        "TransKD-Base": ["optim.lr", "distill.csf.weight", "distill.pea.weight"],
    }
    assert {(s.search.trials, s.search.stop, s.search.startup, s.seeds) for s in found.values()} == {
        (4, "asha", 2, (100,))
    }
    assert len({search_identity(search) for search in found.values()}) == 3
    for search in found.values():
        check_space(search)


def test_a_trial_is_the_variant_with_proposed_values_on_a_seed_of_its_own(study):
    written = study(TUNED, data=SELECT)
    run = trial_run(searches(written)["+ CSF"], 3, {"optim.lr": 2.0e-3, "distill.csf.weight": 0.5})
    assert run.arm == "+ CSF trial 3" and run.role == "trial" and run.seed == run.config.seed == 100
    assert run.config.optim.lr == 2.0e-3
    assert {name: term.weight for name, term in run.config.distill.items()} == {"csf": 0.5}


def test_search_and_seeds_have_one_teacher_by_the_base_s_recipe(study):
    written = study(TUNED.replace("+ CSF: {", "+ CSF: {optim.weight_decay: 0.5, "), data=SELECT)
    won = {"+ CSF": {"optim.lr": 5.0e-3, "distill.csf.weight": 2.0}}
    runs = expand(written, won)
    (teacher,) = [run for run in runs if run.role == "teacher"]
    assert teacher.config.optim.lr == 1.0e-3 and teacher.config.optim.weight_decay == 0.01
    assert {run.needs for run in runs if run.arm == "+ CSF"} == {teacher.key}
    assert trial_run(searches(written)["+ CSF"], 0, won["+ CSF"]).needs == teacher.key


def test_an_arm_awaits_its_search_and_then_is_its_winner(study):
    written = study(TUNED, data=SELECT)
    before = {(run.arm, run.seed): run for run in expand(written)}
    after = {(run.arm, run.seed): run for run in expand(written, {"student alone": {"optim.lr": 5.0e-3}})}
    assert before.keys() == after.keys()
    assert all(run.awaits for run in before.values() if run.role == "arm")
    assert {run.arm for run in after.values() if run.role == "arm" and not run.awaits} == {"student alone"}
    won = after["student alone", 1]
    assert won.config.optim.lr == 5.0e-3 and won.config.data.select == 0.1 and won.seed == 1
    assert won.changed == {"distill": {}, "optim.lr": 5.0e-3}
    assert before["student alone", 1].changed == {"distill": {}, "optim.lr": "tuned"}
    # what awaits is no run: its key is no config's, so that no finished run can stand in for it
    assert len({run.key for run in before.values()}) == len(before)
    assert not {run.key for run in before.values() if run.awaits} & {run.config.key for run in before.values()}


def test_the_table_says_how_each_arm_was_tuned(study):
    written = study(TUNED, data=SELECT)
    found = tuned(
        written,
        s=[ended(n, 30.0 + n, **{"optim.lr": 1.0e-3 * (n + 1)}) for n in range(4)],
        c=[ended(n, None, "failed") for n in range(4)],
        b=[ended(0, 30.0)],
    )
    runs = expand(written, winners(found))
    outcomes = {run.key: Outcome("finished", {"val/miou": 20.0}) for run in runs if not run.awaits}
    outcomes |= {run.key: Outcome("missing", reason=found[run.arm].reason) for run in runs if run.awaits}
    table = build_table(written, runs, outcomes, tuned=found)
    trials = [column.heading for column in table.columns].index("trials")
    assert [row.cells[trials] for row in table.rows] == ["", "4", "4", "4"]
    assert "+ CSF seeds 0, 1 did not finish: no trial of its search finished." in table.explained
    assert "TransKD-Base seeds 0, 1 did not finish: its search has ended 1 of 4 trials." in table.explained
    assert "student alone was tuned to lr=0.004 (trial 3 of 4, select/miou 33.0)." in table.explained
    assert "Unequal: 4 of 4 trials of + CSF failed, the first with: its reason." in table.explained
    (how,) = [note for note in table.explained if note.startswith("Arms were tuned with ")]
    assert "seed 100" in how and "select/miou" in how and "never by val/miou" in how


def test_unequal_budgets_are_flagged(study):
    equal, none = study(TUNED, data=SELECT), study(WEIGHTS, data=SELECT)
    more = study(TUNED + "  trials_of: {TransKD-Base: 8}\n", data=SELECT)
    assert budgets(equal) == {"student alone": 4, "+ CSF": 4, "TransKD-Base": 4}
    assert budgets(none) == {"student alone": 0, "+ CSF": 4, "TransKD-Base": 4}
    assert budgets(more) == {"student alone": 4, "+ CSF": 4, "TransKD-Base": 8}
    assert budgets(study("variants: {a: {}}\n")) == {}

    def unequal(written):
        return [
            note
            for note in build_table(written, expand(written), {}).explained
            if note.startswith("Unequal: the arms' searches")
        ]

    assert unequal(equal) == []
    assert "0 for student alone; 4 for + CSF, TransKD-Base" in unequal(none)[0]
    assert "4 for student alone, + CSF; 8 for TransKD-Base" in unequal(more)[0]


def test_a_variant_without_a_dimension_runs_as_written(study):
    written = study(WEIGHTS, data=SELECT)
    alone = [run for run in expand(written) if run.arm == "student alone"]
    assert len(alone) == 2 and not any(run.awaits for run in alone)
    assert list(searches(written)) == ["+ CSF", "TransKD-Base"]


def test_known_points_are_cut_to_what_applies(study):
    start = "  start: [{optim.lr: 1.0e-3, distill.csf.weight: 1.0}, {optim.lr: 1.0e-3, distill.pea.weight: 2.0}]\n"
    found = searches(study(TUNED + start, data=SELECT))
    assert found["student alone"].search.start == ({"optim.lr": 1.0e-3},)
    assert found["+ CSF"].search.start == ({"optim.lr": 1.0e-3, "distill.csf.weight": 1.0}, {"optim.lr": 1.0e-3})
    assert len(found["TransKD-Base"].search.start) == 2


def test_leave_one_out_is_tuned_too(study):
    written = study(TUNED.split("seeds:")[0].replace("  + CSF: {distill.pea: null}\n", ""), data=SELECT)
    added = study("leave_one_out: distill\nseeds" + TUNED.split("seeds")[1], data=SELECT)
    assert list(searches(added)) == ["base", "base without csf", "base without pea"]
    assert list(space(searches(added)["base without csf"])) == ["optim.lr", "distill.pea.weight"]
    assert searches(written) == {}


def test_more_trials_continue_the_same_searches(study):
    few, many = study(TUNED, data=SELECT), study(TUNED.replace("trials: 4", "trials: 9"), data=SELECT)
    for arm, search in searches(few).items():
        assert search_identity(search) == search_identity(searches(many)[arm])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trials: 4", "trials: 4\n  train_seed: 1", "tune_each.train_seed must not be one of `seeds`"),
        ("trials: 4", "trials: 4\n  trials_of: {+ CFS: 8}", "unknown arm '+ CFS'; did you mean '+ CSF'?"),
        ("trials: 4", "trials: 4\n  start: [{optim.rl: 1.0}]", "start.0: unknown dimension 'optim.rl'"),
        (
            "stop: asha",
            "learn_from: [other]",
            "learn_from: earlier trials would add to the budget of some variants only",
        ),
        ("stop: asha", "against: gmacs", "two objectives have no single best trial to train again"),
        ("    optim.lr: {log: [1.0e-4, 1.0e-2]}", "    distill.kd.weight: {log: [0.1, 1.0]}", "applies to no variant"),
        ("    optim.lr: {log: [1.0e-4, 1.0e-2]}", "    distill: {choice: {a: {}}}", "make distill a variant"),
        ("    optim.lr: {log: [1.0e-4, 1.0e-2]}", "    distill.kd: {choice: [null]}", "make distill.kd a variant"),
        ("csf.weight: {log: [1.0e-2", "csf.weight: {uniform: [0", "distill.csf.weight must be above 0"),
        ("optim.lr: {log", "teacher.name: {log", "tune_each.space: trials share one teacher"),
        ("  TransKD-Base: {}", "  TransKD-Base: {optim.lr: 1.0e-3}", "TransKD-Base: sets optim.lr, which tune_each"),
        ("variants:\n  student", "factors: {optim.lr: [1.0e-3]}\nvariants:\n  student", "variants and factors"),
        ("stop: asha", "stop: asha\n  sampler: bayes", "tune_each.sampler"),
    ],
)
def test_what_cannot_be_fair_is_refused(study, old, new, message):
    assert old in TUNED
    with pytest.raises(UserError) as error:
        expand(study(TUNED.replace(old, new), data=SELECT))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_selection_needs_a_split_cut_from_train(study):
    with pytest.raises(UserError, match=r"tune_each selects by select/miou: set base.data.select above 0"):
        study(TUNED)


def test_variants_that_differ_only_in_what_is_tuned_are_one(study):
    two = WEIGHTS.replace(
        "  TransKD-Base: {}", "  TransKD-Base: {}\n  heavy: {distill.pea: {weight: 5.0, options: {}}}"
    )
    two = two.replace("  TransKD-Base: {}", "  TransKD-Base: {distill.pea: {weight: 1.0, options: {}}}")
    with pytest.raises(UserError, match="arms 'TransKD-Base' and 'heavy' are the same run"):
        expand(study(two, data=SELECT))


def test_a_mistake_at_an_end_of_the_space_names_the_variant(study):
    wrong = TUNED.replace("optim.lr: {log: [1.0e-4, 1.0e-2]}", "optim.global_batch: {uniform: [8, 10.5]}")
    with pytest.raises(UserError, match=r"tune_each of student alone: .*optim.global_batch"):
        expand(study(wrong, data=SELECT))
