"""Trial: one proposal of a search and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Trial:
    """One proposal of a search and its result; `metrics` are those of its last epoch."""

    number: int
    values: dict[str, Any]
    state: Literal["finished", "stopped", "running", "failed"]
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    costs: dict[str, float] = field(default_factory=dict)
    """Costs of the deployed student, known before training."""
    infeasible: int = 0
    """Infeasible proposals, which have no number, between the previous trial and this one."""
