"""with_recipe(): a config's plain data on top of the packaged recipe that it names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from trainer.config.errors import UserError, unknown
from trainer.config.yaml_text import parse_yaml

WHOLE = ("teacher", "distill", "loss")
"""Sections that replace those of the recipe as a whole; of all others single settings do."""


def recipe_names() -> tuple[str, ...]:
    """The names of the packaged recipes."""
    files = resources.files("trainer.recipes").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def with_recipe(data: Any) -> Any:
    """The data without `recipe: NAME`, and with that recipe's settings where it has none of its own.

    What is no mapping, or names no recipe, is returned as it is. Raises UserError for an unknown name.
    """
    if not isinstance(data, Mapping) or "recipe" not in data:
        return data
    found = _read(data["recipe"])
    for name, own in data.items():
        known = found.get(name)
        if name not in WHOLE and isinstance(known, dict) and isinstance(own, Mapping):
            found[name] = known | dict(own)
        elif name != "recipe":
            found[name] = own
    return found


def _read(name: Any) -> dict[str, Any]:
    if not isinstance(name, str):
        raise UserError(f"recipe: expected a name, such as {recipe_names()[0]}, but got {name!r}")
    if name not in recipe_names():
        raise UserError(f"recipe: {unknown('recipe', name, recipe_names())}")
    text = (resources.files("trainer.recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    found = parse_yaml(text, f"recipe {name}")
    assert isinstance(found, dict)
    return found
