"""Limits: upper bounds on the cost of a study's deployed student, checked before any run."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from trainer.config import Number, Strict, UserError

LARGEST = 1e12
"""Of a bound, in its unit."""


class Limits(Strict):
    """Upper bounds on the cost of the deployed student, for one image of `data.size`."""

    params_m: Number | None = Field(None, gt=0, le=LARGEST, description="parameters, millions")
    gmacs: Number | None = Field(
        None, gt=0, le=LARGEST, description="all products that are computed, attention included"
    )
    gmacs_paper: Number | None = Field(None, gt=0, le=LARGEST, description="in the paper's convention")
    latency_ms: Number | None = Field(
        None, gt=0, le=LARGEST, description="median, measured on the hardware that trains"
    )

    @property
    def given(self) -> dict[str, float]:
        """The bounds that are set, by the name of their cost."""
        return self.model_dump(exclude_none=True)

    def exceeded(self, cost: Mapping[str, float]) -> str:
        """The bounds that a cost exceeds, such as `params_m 3.72 is above 3`; empty where it exceeds none."""
        return " and ".join(
            f"{name} {cost[name]:.4g} is above {bound:g}" for name, bound in self.given.items() if cost[name] > bound
        )

    def refuse(self, costs: Mapping[str, Mapping[str, float]]) -> None:
        """Raise UserError naming every arm that exceeds a bound. `costs` are by arm."""
        over = [f"{arm}: {why}" for arm, cost in costs.items() if (why := self.exceeded(cost))]
        if over:
            raise UserError(f"limits: {'; '.join(over)}; take a smaller student or data.size, or raise the limit")
