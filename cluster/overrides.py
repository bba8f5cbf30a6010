"""Override: what some of a study's runs are given instead of what the cluster spec gives to all."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from cluster.workers import LARGEST, Workers
from trainer.config import Number, Strict

ROLES = ("teacher", "arm", "trial")
"""What a run may be in a study: all runs of a role may have an override."""


class Override(Strict):
    """The keys of a cluster spec that are others for the runs of one role, or of one arm."""

    workers: Workers | None = None
    cpus_per_worker: Number | None = Field(None, ge=0.01, le=LARGEST)
    gpus_per_worker: Number | None = Field(None, ge=0, le=LARGEST)

    @model_validator(mode="after")
    def _says_something(self) -> Override:
        if not self.given:
            raise ValueError(f"states nothing; set one of {', '.join(Override.model_fields)}, or remove it")
        return self

    @property
    def given(self) -> dict[str, Any]:
        """What it states."""
        return self.model_dump(exclude_none=True)
