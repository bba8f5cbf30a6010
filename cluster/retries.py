"""Retries: how often one start of a study retries a failed run, by the cause of the failure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Retries(BaseModel):
    """Most retries of a run per cause of failure; each cause is counted separately."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lost: int = Field(3, ge=0)
    """A worker or its machine died. Preemptions that the cloud announces are not counted."""
    device: int = Field(3, ge=0)
    """A GPU failed. Each retry is a new process. A device-side assert that comes twice counts as a bug."""
    memory: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """Out of memory: each retry halves the micro-batch; `auto`: until it is one BatchNorm group."""
    bug: int = Field(0, ge=0)
    """Any other exception; by default not retried, because it would most likely be raised again."""
    nan: int = Field(0, ge=0)
    """A loss was NaN or infinite."""
