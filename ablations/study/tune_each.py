"""TuneEach: a search for every variant of a study over its own settings, as the schema of its YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from ablations.study.arms import Overrides, applies, terms
from ablations.study.search import MAX_TRIALS, Dimension, Search
from trainer.config import Integer, Name, Seed, UserError, override, unknown


class TuneEach(Search):
    """The same search for every variant; each searches the dimensions of `space` that apply to its knowledge paths.

    Trials train with `train_seed`; the best one is trained again with the study's `seeds`.
    """

    train_seed: Seed = Field(
        100, description="must not be one of `seeds`: a score on the seed it was chosen by is biased upwards"
    )
    trials_of: dict[Name, Annotated[Integer, Field(ge=1, le=MAX_TRIALS)]] = Field(
        default_factory=dict, description="variants with another number of trials, which the table flags"
    )

    @model_validator(mode="after")
    def _check_tune_each(self) -> TuneEach:
        if self.against is not None:
            raise UserError("against: two objectives have no single best trial to train again; remove it")
        if self.learn_from:
            raise UserError("learn_from: earlier trials would add to the budget of some variants only; remove it")
        for path, dimension in self.space.items():
            root, *rest = path.split(".")
            if root == "distill" and len(rest) < 2:
                raise UserError(f"space: variants differ in their knowledge paths; make {path} a variant")
            if root == "distill" and rest[1:] == ["weight"] and _may_be_zero(dimension):
                raise UserError(
                    f"space: {path} must be above 0 everywhere, as 0 would turn the variant into another one"
                )
        for index, point in enumerate(self.start):
            for path in point:
                if path not in self.space:
                    raise UserError(f"start.{index}: {unknown('dimension', path, self.space)}")
        return self

    def search_of(self, variant: str, base: Mapping[str, Any]) -> Search | None:
        """The search of a variant, with `base` its complete config; None where no dimension applies to it."""
        weights = terms(base, {})
        space = {path: dimension for path, dimension in self.space.items() if applies(path, weights)}
        if not space:
            return None
        points = [{path: value for path, value in point.items() if path in space} for point in self.start]
        start = [point for i, point in enumerate(points) if point and point not in points[:i]]
        own = {"space": space, "trials": self.trials_of.get(variant, self.trials), "start": tuple(start)}
        shared = {name: getattr(self, name) for name in Search.model_fields}
        return Search.model_construct(self.model_fields_set & shared.keys(), **(shared | own))

    def check(self, base: Mapping[str, Any], arms: Mapping[str, Overrides], seeds: Sequence[int]) -> None:
        """Raise UserError where this does not fit the study's arms (name -> overrides of `base`) and seeds."""
        if self.train_seed in seeds:
            raise UserError(
                "tune_each.train_seed must not be one of `seeds`, as a score on the seed it was chosen by is biased "
                f"upwards, but got {self.train_seed}; change either"
            )
        for arm, changes in arms.items():
            if (trial := re.fullmatch(r"(.*) trial \d+", arm)) and trial[1] in arms:
                raise UserError(
                    f"variants.{arm}: trials of '{trial[1]}' are called '{trial[1]} trial 0', '{trial[1]} trial 1' and "
                    "so on; rename the variant"
                )
            for path in self.space:
                if path in changes:
                    raise UserError(f"{arm}: sets {path}, which tune_each searches; drop it from one of the two")
        searched = {arm: self.search_of(arm, override(base, changes, absent_ok=True)) for arm, changes in arms.items()}
        for path in self.space:
            if not any(search and path in search.space for search in searched.values()):
                raise UserError(f"tune_each.space: {path} applies to no variant; drop it, or add its knowledge path")
        for arm in self.trials_of:
            if arm not in arms:
                raise UserError(f"tune_each.trials_of: {unknown('arm', arm, arms)}")
            if searched[arm] is None:
                raise UserError(f"tune_each.trials_of: no dimension of the space applies to '{arm}'; drop it")


def _may_be_zero(dimension: Dimension) -> bool:
    values = dimension.choices.values() if dimension.kind == "choice" else (dimension.low,)
    return any(not value for value in values)
