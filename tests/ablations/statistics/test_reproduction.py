"""Published beside measured: what is called reproduced, and what forbids to call it so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ablations.statistics.outcome import Outcome
from ablations.statistics.reproduction import Reproduction, reproduction_notes, reproductions
from ablations.study.plan import expand
from ablations.table.arms import build_table
from tests.ablations.statistics.published_study import ARMS, RECIPE, WHOLE, published

NEAR = {"teacher segformer_mini": 70.9, "alone": 50.0, "Base": 60.0}
"""Means of the best epochs: all of them are near what was published."""


def measured(runs, best):
    """All runs finished; the best epochs of an arm are around `best[role or arm]`, 0.5 apart from seed to seed."""
    return {
        run.key: Outcome("finished", {"val/miou": 1.0}, best={"val/miou": best[run.arm] + 0.5 * (run.seed - 1.5)})
        for run in runs
    }


def verdicts(written, best=None, change=lambda outcomes, runs: None):
    runs = expand(written)
    outcomes = measured(runs, best or {"teacher segformer_mini": 70.9, "alone": 50.3, "Base": 60.3})
    change(outcomes, runs)
    return {arm: row.verdict for arm, row in reproductions(written, runs, outcomes).items()}


def test_a_number_within_the_margin_or_the_prediction_interval_is_reproduced(written):
    # 4 seeds 0.5 apart: std 0.645, t 3.18, so one more run falls within 2.3 of their mean
    near = {"teacher segformer_mini": 70.9, "alone": 52.2, "Base": 62.2}
    far = near | {"alone": 52.4, "Base": 62.4}
    assert verdicts(written("margin: 0.3\n"), near) == {
        "teacher segformer_mini": "yes",  # one run, 0.15 away: within the margin
        "alone": "yes",
        "Base": "yes",
    }
    assert verdicts(written("margin: 0.3\n"), far)["Base"] == "no"
    assert verdicts(written("margin: 3.0\n"), far)["Base"] == "yes"


def test_one_run_without_a_margin_decides_nothing_and_neither_do_those_it_teaches(written):
    assert verdicts(written()) == {
        "teacher segformer_mini": "undecided",
        "alone": "yes",
        "Base": "recipe differs",
    }


def test_nothing_is_said_before_all_seeds_have_ended(written):
    def forget_one(outcomes, runs):
        del outcomes[next(run.key for run in runs if (run.arm, run.seed) == ("alone", 2))]

    def forget_the_teacher(outcomes, runs):
        del outcomes[runs[0].key]

    assert verdicts(written("margin: 0.3\n"), change=forget_one)["alone"] == "not yet"
    assert verdicts(written("margin: 0.3\n"), change=forget_the_teacher) == {
        "teacher segformer_mini": "not yet",
        "alone": "yes",
        "Base": "not yet",
    }


def test_failed_seeds_are_no_evidence(written):
    def fail_two(outcomes, runs):
        for run in runs:
            if run.arm == "alone" and run.seed < 2:
                outcomes[run.key] = Outcome("failed", reason="killed")

    assert verdicts(written(), change=fail_two)["alone"] == "undecided"


DIFFERENT = {
    "initialisation": ({"student.init": "pretrained"}, WHOLE, "student.init scratch (pretrained)"),
    "resolution": ({"data.size": "[512, 1024]"}, WHOLE, "data.size [96, 192] ([512, 1024])"),
    "epochs": ({"optim.epochs": "1000"}, WHOLE, "optim.epochs 9 (1000)"),
    "data set": ({"data.name": "cityscapes"}, WHOLE, "data.name scenes (cityscapes)"),
    "part of the split": ({}, "", "data.options.whole not set (true)"),
    "held out": ({}, WHOLE + ", select: 0.1", "data.select 0.1 (0)"),
    "other lists": ({}, ", options: {whole: true, aug: true}", "data.options.aug true (not set)"),
    "another teacher": ({"teacher.name": "segformer_b2"}, WHOLE, "teacher.name segformer_mini (segformer_b2)"),
    "a long list": (
        {"data.class_weights": "[1.0, 2.0, 3.0, 4.0, 5.0]"},
        WHOLE,
        "data.class_weights not set (5 numbers)",
    ),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_another_recipe_is_refused_and_named(written, case):
    change, data, expected = DIFFERENT[case]
    study = written("margin: 0.3\n", data=data, recipe=RECIPE | change)
    runs = expand(study)
    outcomes = measured(runs, {"teacher segformer_mini": 70.9, "alone": 50.0, "Base": 60.0})
    row = reproductions(study, runs, outcomes)["Base"]
    assert row.verdict == "recipe differs"
    assert expected in row.differs
    assert any(
        expected in note and note.startswith("Recipe differs") for note in build_table(study, runs, outcomes).explained
    )


@pytest.mark.parametrize(
    ("path", "aspect", "arm"),
    [
        ("student.init", "initialisation", "alone"),
        ("data.size", "resolution", "alone"),
        ("optim.epochs", "epochs", "alone"),
        ("data.name", "split", "alone"),
        ("distill", "knowledge paths", "Base"),
    ],
)
def test_what_the_source_does_not_say_is_no_agreement(written, path, aspect, arm):
    study = written("margin: 0.3\n", recipe={name: value for name, value in RECIPE.items() if name != path})
    assert verdicts(study)[arm] == "recipe unknown"
    notes = build_table(study, expand(study), {}).explained
    assert any(note.startswith("Recipe unknown") and f"{aspect} ({path})" in note for note in notes)


def test_a_teacher_that_is_not_the_published_one_spoils_its_pupils_alone(written):
    off = {"teacher segformer_mini": 60.0, "alone": 50.0, "Base": 60.0}
    assert verdicts(written("margin: 0.3\n"), off) == {
        "teacher segformer_mini": "undecided",
        "alone": "yes",
        "Base": "recipe differs",
    }


@pytest.mark.parametrize(
    ("stated", "verdict"), [("70.05", "yes"), ("69.0", "recipe differs"), (None, "recipe differs")]
)
def test_a_teacher_from_a_checkpoint_states_the_published_miou(study, stated, verdict):
    miou = f", miou: {stated}" if stated else ""
    arms = (
        f"variants: {{alone: {{distill: {{}}}}, Base: {{teacher: {{name: segformer_mini, checkpoint: t.pt{miou}}}}}}}"
    )
    text = f"{arms}\nseeds: 4\nmargin: 0.3\n{published()}"
    checked = study(text, data=WHOLE)
    assert verdicts(checked)["Base"] == verdict
    said = reproductions(checked, expand(checked), {})["Base"].differs
    assert [one.endswith("(70)") for one in said] == [True] * (verdict != "yes")
    assert stated != "69.0" or said == ("teacher.miou 69 (70)",)


def test_arms_and_teachers_that_were_not_published_are_left_out(study, written):
    other = written("margin: 1.0\n", recipe=RECIPE | {"teacher.name": "segformer_b2"})
    assert verdicts(other).keys() == {"alone", "Base"}
    unnamed = written("margin: 1.0\n", recipe={name: value for name, value in RECIPE.items() if name != "teacher.name"})
    assert verdicts(unnamed)["teacher segformer_mini"] == "yes"
    more = ARMS.replace("Base: {}", "Base: {}, new: {distill.pea: null}")
    assert verdicts(study(more + published(), data=WHOLE), dict.fromkeys(NEAR, 50.0) | {"new": 1.0}).keys() == {*NEAR}


def test_a_pupil_is_held_against_the_published_teacher(study):
    text = published().replace("  teacher: 70.0\n", "").replace("teacher: {optim.epochs: 3}, ", "")
    nameless = study(ARMS + text + "margin: 1.0\n", data=WHOLE)
    runs = expand(nameless)
    row = reproductions(nameless, runs, measured(runs, NEAR))["Base"]
    assert (row.verdict, row.differs, row.unknown) == ("recipe unknown", (), ("the teacher's mIoU",))


def test_a_teacher_whose_recipe_is_unknown_reproduces_none_of_its_pupils(written):
    study = written("margin: 1.0\n", recipe={name: value for name, value in RECIPE.items() if name != "data.size"})
    runs = expand(study)
    found = reproductions(study, runs, measured(runs, NEAR))
    assert found["teacher segformer_mini"].verdict == "recipe unknown"
    assert found["Base"].differs == ("the teacher is not reproduced",)


def test_a_run_that_goes_on_may_still_be_the_one(written):
    def go_on(outcomes, runs):
        last = next(run.key for run in runs if (run.arm, run.seed) == ("alone", 3))
        outcomes[last] = replace(outcomes[last], status="running")

    assert verdicts(written("margin: 5.0\n"), change=go_on)["alone"] == "not yet"


def test_a_number_at_the_very_edge_is_within(written):
    def be_equal(outcomes, runs):
        for run in runs:
            outcomes[run.key] = Outcome("finished", best={"val/miou": {"alone": 50.0}.get(run.arm, 70.25)})

    found = verdicts(written("margin: 0.25\n"), change=be_equal)
    assert (found["teacher segformer_mini"], found["alone"]) == ("yes", "yes")
    assert verdicts(written(), change=be_equal)["alone"] == "yes"


def test_a_run_from_a_file_was_pretrained(study):
    started = study(ARMS.replace("{distill: {}}", "{distill: {}, student.init: here.pth}") + published(), data=WHOLE)
    runs = expand(started)
    assert reproductions(started, runs, {})["alone"].differs == ("student.init pretrained (scratch)",)


def test_the_notes_name_the_source_and_give_the_rule_where_a_row_can_be_asked(written):
    study = written("margin: 0.3\n")
    runs = expand(study)
    found = reproductions(study, runs, measured(runs, NEAR))
    source = (
        "Published numbers are from a paper: single runs at their best epoch on val. Best is our mean over seeds "
        "at the best epoch. The verdicts use neither."
    )
    rule = (
        "Reproduced means that the published number lies within ±0.3 points of our best, or in the 95 % prediction "
        "interval for one more run like ours, from at least 3 seeds."
    )
    assert reproduction_notes(study, found) == [source, rule]
    assert reproduction_notes(study, {}) == [source]
    assert reproduction_notes(study.model_copy(update={"margin": None}), found)[1] == rule.replace(
        "within ±0.3 points of our best, or ", ""
    )
    assert reproduction_notes(study.model_copy(update={"published": None}), found) == []
    unlike = {"alone": Reproduction(50.0, "recipe differs", ("optim.lr 1 (2)",), ())}
    unknown = {"alone": Reproduction(50.0, "recipe unknown", (), ("epochs (optim.epochs)",))}
    assert reproduction_notes(study, unlike) == [source, "Recipe differs, ours (published): optim.lr 1 (2)."]
    assert reproduction_notes(study, unknown) == [
        source,
        "Recipe unknown, the source does not say: epochs (optim.epochs).",
    ]


def test_another_protocol_leaves_the_numbers_out(written):
    assert verdicts(written(protocol="paper")) == {}


def test_a_part_of_val_is_not_held_against_the_whole(study):
    text = f"{ARMS}{published()}metric: val/fog/miou\n"
    part = study(text, data=WHOLE.replace("options", "name: acdc, options"))
    runs = expand(part)
    assert reproductions(part, runs, {}) == {}
    table = build_table(part, runs, {})
    assert table.title.startswith("written   val mIoU in fog (full protocol)")
    assert (
        "Published numbers are left out: they are mIoU over all of val, and this table shows val/fog/miou."
        in table.explained
    )


def test_notes_say_once_what_all_rows_share(written):
    distill = RECIPE["distill"].replace("csf: {}", "csf: {options: {norm: reference}}")
    study = written(recipe=RECIPE | {"optim.lr": "6.0e-5", "distill": distill})
    table = build_table(study, expand(study), {})
    assert [note for note in table.explained if note.startswith("Recipe differs")] == [
        "Recipe differs, ours (published): optim.lr 0.001 (6e-05).",
        "Recipe differs for Base, ours (published): distill.csf.options.norm not set (reference), "
        "the teacher is not reproduced.",
    ]
