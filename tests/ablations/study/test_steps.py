"""Steps of augmentation in a study: reached by name, as variants, factors and dimensions of a search."""

from __future__ import annotations

import copy

import pytest

from ablations.study.plan import expand, override, trial_config
from ablations.study.schema import read
from trainer.config import UserError

STEPS = [{"scale": {"range": [0.5, 2.0]}}, {"name": "crop", "options": {"size": [96, 96]}}, "flip"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data.augment.scale.range": [1, 2]}, [{"scale": {"range": [1, 2]}}, *STEPS[1:]]),
        (
            {"data.augment.crop.cat_max_ratio": 0.75},
            [STEPS[0], {"crop": {"size": [96, 96], "cat_max_ratio": 0.75}}, "flip"],
        ),
        ({"data.augment.flip.probability": 0.25}, [*STEPS[:2], {"flip": {"probability": 0.25}}]),
        ({"data.augment.crop.size": None}, [STEPS[0], {"crop": {}}, "flip"]),
        ({"data.augment.flip": None}, STEPS[:2]),
        ({"data.augment.scale": {}}, [{"scale": {}}, *STEPS[1:]]),
        ({"data.augment.flip": None, "data.augment": ["flip", "blur"]}, ["blur"]),
    ],
    ids=str,
)
def test_a_step_of_augmentation_is_reached_by_its_name(changes, expected):
    before = copy.deepcopy(STEPS)
    assert override({"data": {"augment": STEPS}}, changes)["data"]["augment"] == expected
    assert before == STEPS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.augment.scael.range": [1, 2]}, "data.augment.scael.range: unknown step 'scael'; did you mean 'scale'?"),
        (
            {"data.augment.blur": None},
            "data.augment.blur: unknown step 'blur'; known: crop, flip, scale; steps have an order, so to add one "
            "write the whole list data.augment",
        ),
        ({"data.augment.flip.probability": None}, "nothing to remove; unknown option 'probability'"),
        ({"data.augment.crop.size.height": 3}, "a step has options only; write data.augment.crop.OPTION"),
    ],
)
def test_a_step_that_is_not_there_is_refused(changes, message):
    with pytest.raises(UserError) as caught:
        override({"data": {"augment": STEPS}}, changes)
    assert message in str(caught.value)


AUGMENTED = """
name: augmented
base:
  student: {name: segformer_tiny}
  data: {select: 0.1, size: [96, 192], augment: [scale, {crop: {size: [96, 96]}}, flip]}
"""


def study(rest):
    return read(AUGMENTED + rest, "augmented.yaml")


def test_steps_are_factors():
    found = study(
        "factors: {data.augment.flip: {without: null, with: {}}, "
        "data.augment.scale.range: {to 1: [0.5, 1], to 2: [0.5, 2]}}"
    )
    configs = {run.arm: run.config for run in expand(found)}
    assert {arm: [step.name for step in config.data.steps] for arm, config in configs.items()} == {
        f"flip={state}, scale.range=to {most}": ["scale", "crop", *flip]
        for state, flip in (("without", []), ("with", ["flip"]))
        for most in (1, 2)
    }
    assert len({config.key for config in configs.values()}) == 4


def test_steps_are_left_out_one_by_one():
    runs = expand(study("variants: {whole: {}}\nleave_one_out: data.augment"))
    assert [run.arm for run in runs] == ["whole", *(f"whole without {step}" for step in ("scale", "crop", "flip"))]


SEARCH = """
search:
  trials: 3
  space:
    data.augment.flip.probability: {uniform: [0.1, 0.5]}
    eval.flip: {choice: [false, true]}
    data.augment.scale.range: {choice: {less: [0.5, 1.0], more: [0.5, 2.0]}}
"""


def test_steps_are_dimensions_of_a_search():
    proposed = {"data.augment.flip.probability": 0.3, "eval.flip": "true", "data.augment.scale.range": "less"}
    config = trial_config(study(SEARCH), proposed)
    assert config.eval.flip
    options = [{"range": [0.5, 1.0]}, {"size": [96, 96]}, {"probability": 0.3}]
    assert [dict(step.options) for step in config.data.steps] == options
