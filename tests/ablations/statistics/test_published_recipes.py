"""Published recipes: what is refused in the file, and what those of the packaged studies say."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ablations.statistics.outcome import Outcome
from ablations.statistics.reproduction import reproductions
from ablations.study.plan import expand
from ablations.study.schema import load
from ablations.table.arms import build_table
from ablations.table.text import to_plain
from tests.ablations.statistics.published_study import RECIPE
from trainer.config import TeacherConfig, TeacherRecipe, TrainConfig, UserError, override, parse


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
