"""Published beside measured: what is called reproduced, and what forbids to call it so."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ablations.statistics.outcome import Outcome
from ablations.statistics.reproduction import Reproduction, reproduction_notes, reproductions
from ablations.study.plan import expand
from ablations.study.schema import load
from ablations.table.arms import build_table
from ablations.table.text import to_plain
from trainer.config import TeacherConfig, TeacherRecipe, TrainConfig, UserError, override, parse

ARMS = """
variants: {alone: {distill: {}}, Base: {}}
seeds: 4
"""
RECIPE = {
    "student.init": "scratch",
    "data.name": "scenes",
    "data.size": "[96, 192]",
    "optim.epochs": "9",
    "teacher.name": "segformer_mini",
    "distill": "{csf: {}, pea: {options: {stage_weights: [0.1, 0.1, 0.5, 1.0]}}}",
}
WHOLE = ", options: {whole: true}"
NEAR = {"teacher segformer_mini": 70.9, "alone": 50.0, "Base": 60.0}
"""Means of the best epochs: all of them are near what was published."""


def published(recipe=RECIPE, more="", protocol="full") -> str:
    paths = ", ".join(f"{path}: {value}" for path, value in recipe.items())
    return (
        f"published:\n  source: a paper\n  protocol: {protocol}\n  recipe: {{{paths}}}\n"
        f"  recipes: {{teacher: {{optim.epochs: 3}}, alone: {{distill: {{}}}}}}\n"
        f"  teacher: 70.0\n  alone: 50.0\n  Base: 60.0\n{more}"
    )


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


@pytest.fixture
def written(study):
    def write(rest="", data=WHOLE, **published_as):
        return study(ARMS + published(**published_as) + rest, data=data)

    return write


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


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"optim.epohcs": "3"}, "unknown recipe key 'optim.epohcs'; did you mean 'optim.epochs'?"),
        ({"student.init": "weights.pth"}, "student.init of a recipe must be one of scratch, pretrained"),
        (
            {"distill.csf.weight": 1.0},
            "a recipe must give distill as a whole, such as `distill: {csf: {}}`, but got the key 'dis",
        ),
        ({"distill": "{csf: {wieght: 1.0}}"}, "recipe: distill.csf.wieght: unknown key"),
    ],
)
def test_a_recipe_is_the_path_of_a_config(written, recipe, message):
    with pytest.raises(UserError, match=re.escape(message)):
        written(recipe=RECIPE | recipe)


def test_a_recipe_of_an_arm_without_a_number_is_refused(study):
    text = "published: {source: a, protocol: full, recipe: {}, recipes: {bothe: {optim.lr: 0.1}}, both: 3.0}"
    with pytest.raises(UserError, match="unknown published arm 'bothe'; did you mean 'both'"):
        study(f"variants: {{alone: {{distill: {{}}}}, both: {{}}}}\n{text}")


def test_a_recipe_is_taken_from_the_packaged_study_that_has_it(study):
    text = "published: {source: a, protocol: full, recipe: NAME, student alone: 55.86}"
    arms = "variants: {student alone: {distill: {}}, both: {}}\n"
    taken = study(arms + text.replace("NAME", "cityscapes_modules")).published
    theirs = load("cityscapes_modules").published
    assert taken.recipe == theirs.recipe
    assert taken.recipes == {"student alone": theirs.recipes["student alone"]}
    with pytest.raises(UserError, match="there is no packaged study 'fusion' with a published recipe"):
        study(arms + text.replace("NAME", "fusion"))


STAGES = "distill.pea.options.stage_weights"
MUTATIONS = {
    "a path dropped": ({"distill.csf": None}, ["distill.csf not used (used)"]),
    "other paths": (
        {"distill": {"kd": {}}},
        ["distill.csf not used (used)", "distill.pea not used (used)", "distill.kd used (not used)"],
    ),
    "a path of weight 0": ({"distill.csf.weight": 0.0}, ["distill.csf not used (used)"]),
    "a weight": ({"distill.pea.weight": 50.0}, ["distill.pea.weight 50 (1)"]),
    "options": (
        {STAGES: [1.0, 1.0, 1.0, 1.0], "distill.csf.options.stage_weights": [0.0, 0.0, 0.0, 1.0]},
        [
            "distill.csf.options.stage_weights [0, 0, 0, 1] (not set)",
            f"{STAGES} [1, 1, 1, 1] ([0.1, 0.1, 0.5, 1])",
        ],
    ),
    "an option dropped": ({"distill.csf.options": {}}, ["distill.csf.options.norm not set (reference)"]),
    "regularisation and arithmetic": (
        {"student.dropout": 0.9, "optim.power": 5.0, "optim.precision": "bf16", "optim.norm_batch": 1},
        ["student.dropout 0.9 (0.1)", "optim.norm_batch 1 (2)", "optim.power 5 (1)", "optim.precision bf16 (fp32)"],
    ),
    "another optimiser and loss": (
        {"optim.optimiser": "sgd", "optim.lr_multipliers.head": 10.0, "loss": {"ce": {"weight": 0.5}, "dice": {}}},
        [
            "optim.optimiser sgd (adamw)",
            "optim.lr_multipliers {backbone: 1, head: 10, distill: 1} ({backbone: 1, head: 1, distill: 1})",
            "loss.ce.weight 0.5 (1)",
            "loss.dice used (not used)",
        ],
    ),
    "the teacher's pictures": ({"teacher.normalize": "imagenet"}, ["teacher.normalize imagenet (not set)"]),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_change_of_the_published_recipe_is_named_whatever_it_changes(mutation):
    changes, expected = MUTATIONS[mutation]
    study = load("cityscapes_reproduction")
    run = next(run for run in expand(study) if run.arm == "TransKD-Base")
    changed = replace(run, config=parse(override(run.config.model_dump(mode="json"), changes)))
    (row,) = reproductions(study, [changed], {}).values()
    assert row.verdict == "recipe differs"
    assert row.differs == tuple(expected)


@pytest.mark.parametrize("name", ["cityscapes_modules", "acdc_modules"])
def test_a_published_recipe_says_every_field_that_moves_numbers(name):
    recipe = load(name).published.recipe_of("TransKD-Base")
    sections = TrainConfig(teacher=TeacherConfig(train=TeacherRecipe())).model_dump()
    no_numbers = {
        "teacher.checkpoint",
        "teacher.miou",
        "teacher.train",
        "student.partial",
        "eval.protocols",
        "eval.splits",
    }
    always_compared = {"data.options", "data.select"}
    fields = {f"{name}.{field}" for name, section in sections.items() if isinstance(section, dict) for field in section}
    sums = {"distill", "loss"}
    fields = {field for field in fields if field.split(".")[0] not in sums}
    assert (fields - no_numbers - always_compared) | sums == set(recipe)


def test_what_keeps_a_run_of_cirkds_study_from_the_publication_is_named():
    study = load("cityscapes_cirkd")
    runs = [run for run in expand(study) if run.arm == "student alone" or run.role == "teacher"]
    rows = reproductions(study, runs, {})
    assert len(rows) == 2
    for row in rows.values():
        assert row.differs == ("data.normalize imagenet (mean colour subtracted)",)
        assert not row.unknown


def test_the_published_recipe_itself_is_not_refused():
    """Of a study that runs what was published, only our own numbers can speak against the published ones."""
    reproduction = load("cityscapes_reproduction")
    runs = expand(reproduction)
    bests = {"student alone": 55.9, "TransKD-Base": 68.5, "TransKD-GL": 60.0, "TransKD-EA": 69.5}
    outcomes = {
        run.key: Outcome("finished", {"val/miou": 50.0}, best={"val/miou": bests[run.arm] + 0.2 * (run.seed - 1)})
        for run in runs
    }
    table = build_table(reproduction, runs, outcomes)
    assert not any(note.startswith("Recipe") for note in table.explained)
    assert [row.values["reproduced"] for row in table.rows] == ["yes", "yes", "no", "yes"]
    assert "68.58   yes" in to_plain(table)
