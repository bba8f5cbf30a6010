"""A trial of a search: one proposal and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Trial:
    """One proposal of a search and what came of it; `metrics` are those of its last epoch."""

    number: int
    values: dict[str, Any]
    state: Literal["finished", "stopped", "running", "failed"]
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    costs: dict[str, float] = field(default_factory=dict)
    """Of the deployed student, known before it trained."""
    infeasible: int = 0
    """Proposals that were infeasible, and took no number, between the one before and this."""
