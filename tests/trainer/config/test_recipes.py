"""Packaged recipes: each is a whole config with a source, a study may change any setting, and no file ever changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from ablations.study.plan import expand
from ablations.study.schema import load, read
from trainer.config import UserError, digest, override, parse, recipe_names, with_recipe

Make = Callable[..., Any]
DIGESTS = {
    "cirkd": "c3b5f357e559",
    "laptop": "28d36acf3673",
    "segformer": "5bc1874abb37",
    "transkd": "3b323c60a9b4",
}
"""Of what a file says: studies in stores name a recipe, and are read anew. A correction is a recipe of another name."""

STUDY = """
name: mine
base:
  recipe: laptop
  data: {name: camvid}
  optim: {epochs: 3}
  distill: {csf: {}}
variants:
  both: {}
  alone: {distill: {}}
  slow: {optim.lr: 1.0e-4}
"""


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_a_config_with_its_source(name: str) -> None:
    config = parse({"recipe": name})
    assert config == parse(with_recipe({"recipe": name}))
    text = (resources.files("trainer.recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    header = text[: text.index("\nstudent:")]
    assert "arXiv" in header or "RESULTS.md" in header
    assert digest(with_recipe({"recipe": name})) == DIGESTS[name]


def test_single_settings_replace_those_of_the_recipe_and_paths_and_teachers_whole() -> None:
    given = {
        "recipe": "transkd",
        "optim": {"lr": 1e-3, "norm_batch": None},
        "teacher": {"checkpoint": "b2.pth"},
        "distill": {"kd": {}},
    }
    config = parse(given)
    assert (config.optim.lr, config.optim.norm_batch, config.optim.epochs) == (1e-3, None, 1000)
    assert (config.data.size, config.data.normalize) == ((512, 1024), "unit")
    assert list(config.distill) == ["kd"]
    assert config.teacher is not None
    assert (config.teacher.checkpoint, config.teacher.train) == ("b2.pth", None)
    assert given["recipe"] == "transkd"


def test_transkds_recipe_is_that_of_the_study_that_reproduces_it() -> None:
    base = load("cityscapes_reproduction").base
    given = {section: base[section] for section in ("teacher", "data")}
    own = {name: value for name, value in given["data"].items() if name in ("name", "options", "class_weights")}
    assert parse({"recipe": "transkd", "data": own, "teacher": given["teacher"]}).key != parse(base).key
    named = override(base, {"optim.norm_batch": 2})  # which is its global batch
    assert parse({"recipe": "transkd", "data": own, "teacher": given["teacher"]}).key == parse(named).key


def test_a_study_starts_from_a_recipe_and_changes_it() -> None:
    study = read(STUDY, "mine.yaml")
    assert "recipe" not in study.base
    runs = {run.arm: run.config for run in expand(study)}
    assert (runs["both"].student.name, runs["both"].data.size, runs["both"].optim.epochs) == (
        "segformer_mini",
        (96, 128),
        3,
    )
    assert runs["alone"].distill == {}
    assert (runs["slow"].optim.lr, runs["slow"].optim.global_batch) == (1e-4, 8)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("recipe: laptop", "recipe: labtop", "recipe: unknown recipe 'labtop'; did you mean 'laptop'?"),
        ("recipe: laptop", "recipe: [laptop]", "recipe: expected a name, such as cirkd, but got ['laptop']"),
        ("optim.lr: 1.0e-4", "recipe: cirkd", "recipe: it is written in the base, and a change names single settings"),
    ],
)
def test_a_wrong_recipe_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        expand(read(STUDY.replace(old, new), "mine.yaml"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_fit_takes_a_recipe(command: Make, tmp_path: Path) -> None:
    asked = {"recipe": "laptop", "data": {"size": [50, 50]}}
    (tmp_path / "run.yaml").write_text(json.dumps(asked), encoding="utf-8")
    code, _, said = command("fit", tmp_path / "run.yaml", "--out", tmp_path / "run", "--set", "optim.epochs=1")
    assert code == 2
    assert "height must be a multiple of 4 from 32 to 16384 but got 50" in said
    (tmp_path / "run.yaml").write_text(json.dumps({"recipe": "laptob"}), encoding="utf-8")
    code, _, said = command("fit", tmp_path / "run.yaml", "--out", tmp_path / "run")
    assert (code, said.count("\n")) == (2, 1)
    assert "run.yaml: recipe: unknown recipe 'laptob'; did you mean 'laptop'?" in said
