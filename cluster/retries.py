"""Retries: how often one start of a study retries a failed run, by the cause of the failure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainer.config import Integer, Strict


class Retries(Strict):
    """Most retries of a run per cause of failure; each cause is counted separately."""

    lost: Integer = Field(3, ge=0, le=1000)
    """A worker or its machine died. Preemptions that the cloud announces are not counted; where `workers` is a range,
    neither are losses before the last checkpoint."""
    device: Integer = Field(3, ge=0, le=1000)
    """A GPU failed. Each retry is a new process. A device-side assert that comes twice counts as a bug."""
    memory: Literal["auto"] | Annotated[Integer, Field(ge=0, le=1000)] = "auto"
    """Out of memory: each retry halves the micro-batch; `auto`: until it is one BatchNorm group."""
    bug: Integer = Field(0, ge=0, le=1000)
    """Any other exception; by default not retried, because it would most likely be raised again."""
    nan: Integer = Field(0, ge=0, le=1000)
    """A loss was NaN or infinite."""
