"""Search: the space of a hyperparameter search, its sampler, metric and early stopping, as the schema of its YAML."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ablations.study.arms import label, labelled, refuse_same_look
from trainer.config import MOST, Count, Integer, Name, Number, Seed, Strict, UserError, is_recorded, unknown

RANGES = ("log", "uniform", "int")

LARGEST = 1e15
"""Of a range's ends: whole numbers up to it are exact."""

MAX_TRIALS = 100_000
"""Of a search."""

ANY_STUDY = "any study"
"""In `learn_from`, every study in the store. No study can have this name."""


class Dimension(Strict):
    """One dotted path to search: {log: [low, high]}, {uniform: ...}, {int: ...} (ends included) or {choice: [...]}.

    `choices` maps labels to values; a proposal is the label.
    """

    kind: Literal["log", "uniform", "int", "choice"]
    low: Number = Field(0.0, ge=-LARGEST, le=LARGEST)
    high: Number = Field(0.0, ge=-LARGEST, le=LARGEST)
    choices: dict[Name, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, data: Any) -> Any:
        if not isinstance(data, dict) or len(data) != 1:
            raise ValueError(f"write one of log, uniform, int: [low, high] or choice: [...], but got {data!r}")
        ((kind, given),) = data.items()
        if kind == "choice":
            return {"kind": kind, "choices": labelled(given)}
        if kind not in RANGES:
            raise unknown("kind of dimension", str(kind), (*RANGES, "choice"))
        if not isinstance(given, list | tuple) or len(given) != 2:
            raise ValueError(f"{kind} needs [low, high], but got {given!r}")
        return {"kind": kind, "low": given[0], "high": given[1]}

    @model_validator(mode="after")
    def _check_range(self, info: ValidationInfo) -> Dimension:
        if self.kind == "choice":
            if not is_recorded(info):
                refuse_same_look(self.choices)
            return self
        if self.low >= self.high:
            raise ValueError(f"{self.kind}: low must be below high but got [{self.low:g}, {self.high:g}]")
        if self.kind == "log" and self.low <= 0:
            raise ValueError(f"log: low must be above 0 but got {self.low:g}; raise it, or use uniform")
        if self.kind == "int" and (self.low % 1 or self.high % 1):
            raise ValueError(f"int: both ends must be whole numbers but got [{self.low:g}, {self.high:g}]")
        return self

    def resolve(self, proposed: Any) -> Any:
        """The config's value for a proposal: a number, or the label of a choice."""
        if self.kind == "choice":
            return self.choices[proposed]
        return int(proposed) if self.kind == "int" else proposed

    def proposal(self, given: Any) -> Any:
        """The proposal that has this value or label. Raises UserError where the dimension does not contain it."""
        if self.kind == "choice":
            for name, value in self.choices.items():
                if value == given and type(value) is type(given):
                    return name
            if isinstance(given, str) and given in self.choices:
                return given
            raise UserError(f"{label(given)} is none of its choices: {', '.join(self.choices)}")
        whole = self.kind != "int" or (isinstance(given, int | float) and given % 1 == 0)
        if isinstance(given, bool) or not isinstance(given, int | float) or not whole:
            raise UserError(f"a {'whole number' if self.kind == 'int' else 'number'} is expected, but got {given!r}")
        if not self.low <= given <= self.high:
            raise UserError(f"{given:g} is outside [{self.low:g}, {self.high:g}]")
        return int(given) if self.kind == "int" else float(given)


class Search(Strict):
    """The settings of a search. `trials` is a total: raising it continues the same search."""

    space: dict[Name, Dimension] = Field(min_length=1)
    trials: Integer = Field(0, ge=1, le=MAX_TRIALS, description="a grid may leave it out: all of its points")
    sampler: Literal["tpe", "cmaes", "nsga2", "grid", "random"] = "tpe"
    stop: Literal["asha", "median", "none"] = "none"
    metric: Literal["select/miou"] = "select/miou"
    """mIoU on samples held out of train; val is reported and never used for selection. Higher is better."""
    against: Literal["params_m", "gmacs", "gmacs_paper"] | None = None
    """Second objective: a cost of the deployed student to minimise. The search is then for the Pareto front."""
    startup: Count = Field(10, description="random trials before tpe and cmaes model; nsga2: a generation")
    eta: Integer = Field(3, ge=2, le=MOST, description="asha: one trial in eta goes on past a rung")
    min_epochs: Count = Field(1, description="epochs before a trial may be stopped; asha: to the first rung")
    brackets: Integer = Field(1, ge=1, le=20, description="asha: bracket s has its first rung at min_epochs * eta**s")
    deterministic: bool = Field(False, description="repeat exactly, however many trials run at once")
    batch: Integer = Field(
        4, ge=1, le=MAX_TRIALS, description="deterministic: trials proposed, and judged at a rung, together"
    )
    seed: Seed = 0
    start: tuple[dict[Name, Any], ...] = ()
    learn_from: tuple[Name, ...] = ()
    """Studies in the store whose trials the sampler is given before its first proposal, or `any study`."""

    @field_validator("learn_from", mode="before")
    @classmethod
    def _as_tuple(cls, names: Any) -> Any:
        return (names,) if isinstance(names, str) else names

    @model_validator(mode="after")
    def _check(self) -> Search:
        if not self.trials and self.sampler != "grid":
            raise ValueError("trials is missing; give the total, such as trials: 40")
        self._check_sampler()
        if self.against and self.stop != "none":
            raise ValueError(f"stop: {self.stop} judges by one metric, and `against` adds a second; set stop: none")
        if self.against and self.sampler == "cmaes":
            raise ValueError("sampler: cmaes has one objective, and `against` adds a second; use nsga2, tpe or random")
        for name, applies, needed in (
            ("eta", self.stop == "asha", "stop: asha"),
            ("min_epochs", self.stop != "none", "stop: asha or median"),
            ("startup", self.sampler in ("tpe", "cmaes", "nsga2"), "sampler: tpe, cmaes or nsga2"),
            ("brackets", self.stop == "asha", "stop: asha"),
            ("batch", self.deterministic, "deterministic: true"),
        ):
            if name in self.model_fields_set and not applies:
                raise ValueError(f"{name} only applies with {needed}; set it, or remove {name}")
        return self

    def _check_sampler(self) -> None:
        choices = [path for path, dimension in self.space.items() if dimension.kind == "choice"]
        ranges = [path for path, dimension in self.space.items() if dimension.kind in ("log", "uniform")]
        if self.sampler == "cmaes" and choices:
            raise ValueError(
                f"sampler: cmaes needs numeric dimensions that always apply, but {choices[0]} is a choice; use tpe"
            )
        if self.sampler == "grid" and ranges:
            raise ValueError(f"sampler: grid needs choices or ints, but {ranges[0]} is a range; write choice: [...]")
        if self.sampler == "grid" and self.start:
            raise ValueError("start: a grid proposes all of its points in any case; remove start, or use tpe")
        if self.stop != "none" and "optim.epochs" in self.space:
            raise ValueError(
                f"stop: {self.stop} compares trials of equal length; take optim.epochs out of space, or set stop: none"
            )
        if self.sampler == "nsga2" and self.startup < 2:
            raise ValueError("startup: a generation of nsga2 needs two parents; set 2 or more, such as 10")
        if self.learn_from and self.sampler in ("grid", "random"):
            raise ValueError(f"learn_from: {self.sampler} learns nothing from results; remove it, or use tpe")

    def rungs(self, epochs: int, bracket: int = 0) -> tuple[int, ...]:
        """Epochs at which a trial of `epochs` may be stopped: min_epochs * eta**(bracket + k) below `epochs` (Li et
        al., MLSys 2020, Algorithm 1, whose s is the bracket). The schedule of every trial is that of all `epochs`."""
        rungs = []
        rung = self.min_epochs * self.eta**bracket
        while self.stop == "asha" and rung < epochs:
            rungs.append(rung)
            rung *= self.eta
        return tuple(rungs)

    def bracket(self, number: int) -> int:
        """The bracket of a trial. At any time each bracket has its share of trials (see `shares`), up to rounding."""
        return _brackets(self.shares, max(number + 1, self.trials))[number] if self.brackets > 1 else 0

    @property
    def shares(self) -> tuple[float, ...]:
        """Each bracket's share of the trials, as Hyperband starts them: ceil(B / (s + 1) * eta**s) of B brackets, where
        s counts from the last (Li et al., JMLR 2018, Algorithm 1)."""
        most = self.brackets
        starts = [math.ceil(most / (s + 1) * self.eta**s) for s in reversed(range(most))]
        return tuple(start / sum(starts) for start in starts)

    def check_rungs(self, epochs: int, every: int) -> None:
        """Raise UserError where early stopping cannot work on trials of `epochs`, evaluated `every` so many."""
        if self.stop != "none" and self.min_epochs >= epochs:
            raise UserError(
                f"search.min_epochs is {self.min_epochs} of {epochs} epochs, so stop: {self.stop} never stops; lower "
                "min_epochs, or set stop: none"
            )
        most = len(self.rungs(epochs)) + 1
        if self.brackets > most:
            raise UserError(
                f"search.brackets is {self.brackets} but {epochs} epochs have rungs for {most}, where the last never "
                "stops; lower brackets"
            )
        for rung in self.rungs(epochs):
            if rung % every:
                raise UserError(
                    f"search: trials are not evaluated at rung {rung}, as eval.every is {every}; set eval.every to 1, "
                    "or search.min_epochs to a multiple of eval.every"
                )

    def describe_stops(self, epochs: int) -> list[str]:
        """Where trials of `epochs` may be stopped, and at what share of a full trial's cost; one line per bracket."""
        if self.stop == "median":
            spent = f"{self.min_epochs} ({self.min_epochs / epochs:.0%}) of {epochs}"
            return [f"stops from epoch {spent} on: trials below the median of the finished trials' running means"]
        lines = []
        for bracket, share in enumerate(self.shares if self.stop == "asha" else ()):
            listed = ", ".join(f"{rung} ({rung / epochs:.0%})" for rung in self.rungs(epochs, bracket))
            where = f"stops at epochs {listed} of {epochs}; one in {self.eta} goes on" if listed else "never stops"
            lines.append(where if self.brackets == 1 else f"bracket {bracket}, {share:.0%} of the trials: {where}")
        return lines


@cache
def _brackets(shares: tuple[float, ...], trials: int) -> tuple[int, ...]:
    """The bracket of each trial: always the one furthest below its share. Cached, as it is needed at every epoch."""
    counts, chosen = [0] * len(shares), []
    for trial in range(trials):
        deficits = [share * (trial + 1) - count for share, count in zip(shares, counts, strict=True)]
        chosen.append(deficits.index(max(deficits)))
        counts[chosen[-1]] += 1
    return tuple(chosen)
