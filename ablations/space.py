"""Search: which configurations a study proposes, selects by and stops early, as the schema of its YAML."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ablations.arms import label, labelled
from trainer.config import Number, Strict, UserError, unknown

RANGES = ("log", "uniform", "int")


class Dimension(Strict):
    """One dotted path to search: {log: [low, high]}, {uniform: ...}, {int: ...} (ends included) or {choice: [...]}.

    `choices` maps labels to values: a proposal names the label, so it stays a word whatever the value is.
    """

    kind: Literal["log", "uniform", "int", "choice"]
    low: Number = 0.0
    high: Number = 0.0
    choices: dict[str, Any] = Field(default_factory=dict)

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
    def _range_is_one(self) -> Dimension:
        if self.kind == "choice":
            return self
        if self.low >= self.high:
            raise ValueError(f"{self.kind}: low must be below high but got [{self.low:g}, {self.high:g}]")
        if self.kind == "log" and self.low <= 0:
            raise ValueError(f"log: low must be above 0 but got {self.low:g}; a logarithm has no zero")
        if self.kind == "int" and (self.low % 1 or self.high % 1):
            raise ValueError(f"int: both ends must be whole numbers but got [{self.low:g}, {self.high:g}]")
        return self

    def resolve(self, proposed: Any) -> Any:
        """The config's value for a proposal: a number, or the label of a choice."""
        if self.kind == "choice":
            return self.choices[proposed]
        return int(proposed) if self.kind == "int" else proposed

    def proposal(self, given: Any) -> Any:
        """What a sampler would have proposed for a value or a label. Raises UserError when it could not have."""
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
    """How a search proposes, selects and stops. `trials` is a total: raising it continues the same search."""

    space: dict[str, Dimension] = Field(min_length=1)
    trials: int = Field(ge=1)
    sampler: Literal["tpe", "random"] = "tpe"
    stop: Literal["asha", "none"] = "none"
    metric: Literal["select/miou"] = "select/miou"
    """Of samples cut from train: val is reported and never selected by. Higher is better."""
    startup: int = Field(10, ge=1, description="random trials before tpe models what it was told")
    eta: int = Field(3, ge=2, description="asha: one trial in eta goes on past a rung")
    min_epochs: int = Field(1, ge=1, description="asha: epochs to the first rung")
    seed: int = Field(0, ge=0)
    start: tuple[dict[str, Any], ...] = ()

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Epochs at which a trial of `epochs` may be stopped: min_epochs * eta**k below `epochs` (Li et al. 2020)."""
        rungs = []
        rung = self.min_epochs
        while self.stop == "asha" and rung < epochs:
            rungs.append(rung)
            rung *= self.eta
        return tuple(rungs)
