"""Published: numbers of a publication and the recipe that gave them, as the schema of a study's YAML."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from trainer.config import (
    Name,
    Number,
    Options,
    Strict,
    TeacherConfig,
    TeacherRecipe,
    TrainConfig,
    UserError,
    parse,
    parse_yaml,
    unknown,
)

ASPECTS = {
    "initialisation": "student.init",
    "resolution": "data.size",
    "epochs": "optim.epochs",
    "split": "data.name",
    "knowledge paths": "distill",
}
"""Settings that a published recipe must give before its number is compared with a result: aspect -> dotted path."""

INITS = ("scratch", "pretrained")
"""Values of `student.init` in a recipe. All files of ImageNet weights count as `pretrained`."""

SUMS = ("distill", "loss")
"""Sections of a config whose keys are the summands of the loss: a recipe gives them as a whole."""

_SHAPE = TrainConfig(teacher=TeacherConfig(train=TeacherRecipe())).model_dump(mode="json")


class Published(Strict):
    """Numbers by arm (and `teacher`), in points, like `val/miou`: single runs, of the best epoch on val.

    `recipe` is the published config as dotted paths; `recipes` gives, by arm, the settings in which that arm differed.
    Paths of `teacher` apply to arms that have one. `distill` and `loss` must be given as a whole: names, weights
    and options are compared as written, so they must list the same options as the study's runs. `recipe: NAME` takes
    both from the packaged study of that name.
    """

    source: Name
    protocol: Literal["paper", "full"]
    recipe: Options = Field(default_factory=dict)
    recipes: dict[Name, Options] = Field(default_factory=dict)
    arms: dict[Name, Annotated[Number, Field(ge=0, le=100)]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _collect_arms(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        own = {key: data[key] for key in ("source", "protocol", "recipe", "recipes") if key in data}
        arms = {key: value for key, value in data.items() if key not in own}
        if isinstance(own.get("recipe"), str):
            there = _packaged(own["recipe"])
            recipes = {arm: recipe for arm, recipe in there.get("recipes", {}).items() if arm in arms}
            own |= {"recipe": there["recipe"], "recipes": recipes | own.get("recipes", {})}
        return {**own, "arms": arms}

    @field_validator("recipe")
    @classmethod
    def _check_recipe_paths(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        return _checked(recipe)

    @field_validator("recipes")
    @classmethod
    def _check_recipes_paths(cls, recipes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {arm: _checked(recipe) for arm, recipe in recipes.items()}

    @model_validator(mode="after")
    def _check_recipes_arms(self) -> Published:
        for arm in self.recipes:
            if arm not in self.arms:
                raise UserError(f"recipes: {unknown('published arm', arm, self.arms)}")
        return self

    def recipe_of(self, arm: str) -> dict[str, Any]:
        """The published recipe of an arm. For `teacher`, that of the run that trained it: its network, and no paths."""
        own = self.recipes.get(arm, {})
        if arm != "teacher":
            return self.recipe | own
        alone = {path: value for path, value in self.recipe.items() if path.split(".")[0] != "teacher"}
        network = {"student.name": self.recipe["teacher.name"]} if "teacher.name" in self.recipe else {}
        return alone | {"distill": {}} | network | own


def _packaged(name: str) -> dict[str, Any]:
    """The `published` section of a packaged study, as written."""
    file = resources.files("ablations.studies") / f"{name}.yaml"
    try:
        published = parse_yaml(file.read_text(encoding="utf-8"), f"{name}.yaml").get("published", {})
    except OSError:
        published = {}
    if not isinstance(published.get("recipe"), dict):
        raise UserError(f"recipe: there is no packaged study '{name}' with a published recipe; write the recipe here")
    return published


def _checked(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe, with steps of augmentation as a config has them. Raises UserError for a path that no config has: a
    typo would otherwise count as a difference of recipes."""
    for path, value in recipe.items():
        if (section := path.split(".")[0]) in SUMS and path != section:
            raise UserError(
                f"a recipe must give {section} as a whole, such as `distill: {{csf: {{}}}}`, but got the key '{path}'"
            )
        if path in SUMS:
            parse({"teacher": _SHAPE["teacher"], path: value}, "recipe")
        inside: Any = _SHAPE
        for part in path.split("."):
            if inside == {}:  # options can have any key here; they are checked where modules are built
                break
            if not isinstance(inside, dict) or part not in inside:
                raise unknown("recipe key", path, _paths(_SHAPE))
            inside = inside[part]
        if path == ASPECTS["initialisation"] and value not in INITS:
            raise UserError(f"{path} of a recipe must be one of {', '.join(INITS)}, but got {value!r}")
    if isinstance(steps := recipe.get("data.augment"), list):
        config = parse({"data": {"augment": steps}}, "recipe")
        return {**recipe, "data.augment": config.model_dump(mode="json")["data"]["augment"]}
    return dict(recipe)


def _paths(data: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in data.items():
        found += _paths(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [f"{prefix}{name}"]
    return found
