"""Retries: how often one start of a study tries a failed run again, by what it failed of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Retries(BaseModel):
    """Further attempts at a run, by the cause of the last one's end. A cause spends its own budget and no other's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lost: int = Field(3, ge=0)
    """Its worker or machine went. What a cloud announces before it takes a machine back costs nothing."""
    memory: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """It did not fit: again with half the micro-batch; `auto`: down to one BatchNorm group."""
    bug: int = Field(0, ge=0)
    """Code raised an error: it would most likely raise it again."""
    nan: int = Field(0, ge=0)
    """A loss was not finite."""
