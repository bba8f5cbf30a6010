"""Settings of the optimiser and task losses as factors and as dimensions of a search."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ablations.study.plan import check_space, expand, space
from ablations.study.schema import read
from trainer.config import UserError, parse

FACTORS: dict[str, Any] = {
    "optim.optimiser": ["adamw", "sgd"],
    "optim.iterations": {"passes": None, "two hundred": 200},
    "optim.warmup_iterations": [0, 50],
    "optim.clip_norm": {"off": None, "one": 1.0},
    "optim.lr_multipliers.head": [1, 10],
    "optim.no_decay": {"vectors": None, "norms": ["norms"]},
    "optim.ema_decay": {"off": None, "on": 0.99},
    "loss": {"ce": {"ce": {}}, "focal": {"focal": {}}},
    "loss.dice": [None, {}],
    "loss.ce.weight": [1.0, 0.5],
}


@pytest.mark.parametrize("path", FACTORS)
def test_a_setting_is_a_factor_whose_default_is_the_run_without_it(path: str) -> None:
    text = {"name": "mine", "base": {"student": {"name": "segformer_tiny"}}, "factors": {path: FACTORS[path]}}
    plain, changed = (run.config for run in expand(read(yaml.safe_dump(text, sort_keys=False), "mine.yaml")))
    assert plain.key == parse(text["base"]).key
    assert changed.key != plain.key


def test_settings_are_dimensions_of_a_search() -> None:
    dimensions = {
        "optim.lr_multipliers.head": {"log": [1.0, 20.0]},
        "optim.ema_decay": {"uniform": [0.9, 0.99]},
        "optim.warmup_iterations": {"int": [0, 100]},
        "loss.dice.weight": {"log": [0.1, 1.0]},
    }
    base = {"student": {"name": "segformer_tiny"}, "data": {"select": 0.1}, "loss": {"ce": {}, "dice": {}}}
    study = {"name": "mine", "base": base, "search": {"trials": 4, "space": dimensions}}
    assert set(space(read(yaml.safe_dump(study), "mine.yaml"))) == set(dimensions)


def test_a_search_proposes_a_weight_with_its_loss_only() -> None:
    dimensions = {"loss.dice": {"choice": [None, {}]}, "loss.dice.weight": {"log": [0.1, 1.0]}}
    base = {"student": {"name": "segformer_tiny"}, "data": {"select": 0.1}}
    study = read(yaml.safe_dump({"name": "mine", "base": base, "search": {"trials": 4, "space": dimensions}}), "m.yaml")
    points = check_space(study)
    assert {"loss.dice": "off"} in points
    assert {"loss.dice": "on", "loss.dice.weight": 0.1} in points


def test_a_weight_has_no_effect_without_its_loss() -> None:
    factors = {"loss.dice": {"off": None, "on": {}}, "loss.dice.weight": [0.5, 2.0]}
    study = {"name": "mine", "base": {"student": {"name": "segformer_tiny"}}, "factors": factors}
    runs = {run.arm: run.config.loss for run in expand(read(yaml.safe_dump(study, sort_keys=False), "mine.yaml"))}
    assert list(runs) == ["loss.dice=off", "loss.dice=on, loss.dice.weight=0.5", "loss.dice=on, loss.dice.weight=2"]
    assert [list(loss) for loss in runs.values()] == [["ce"], ["ce", "dice"], ["ce", "dice"]]
    assert [loss["dice"].weight for loss in list(runs.values())[1:]] == [0.5, 2.0]


def test_a_weight_of_a_loss_that_is_not_there_is_refused() -> None:
    study = {"name": "mine", "base": {}, "variants": {"a": {}, "b": {"loss.dice.weight": 0.5}}}
    with pytest.raises(UserError, match=r"loss\.dice\.weight: unknown task loss 'dice'; did you mean 'ce'|known: ce"):
        expand(read(yaml.safe_dump(study), "mine.yaml"))
