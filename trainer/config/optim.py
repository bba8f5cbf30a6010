"""OptimConfig: how a run is optimised, and how a global batch may be split."""

from __future__ import annotations

import contextlib
from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.config.errors import UserError
from trainer.config.fields import FLOAT32, MOST, Count, Integer, Number, Precision, Strict
from trainer.config.text import counted

ADDED_LATER = (
    "optimiser",
    "momentum",
    "warmup_iterations",
    "clip_norm",
    "lr_multipliers",
    "no_decay",
    "iterations",
    "ema_decay",
)
"""Fields of OptimConfig that the first ledgers lack: at their defaults they are left out of a config's key."""

Factor = Annotated[Number, Field(gt=0, le=1000)]
Kind = Literal["norms", "biases", "positions"]
"""Parameters of normalisation layers; biases of other layers; position embeddings, and tables of relative positions."""


class LrMultipliers(Strict):
    """Factors of the learning rate: of the student's backbone, of its head, and of what knowledge paths train
    (`distill`), such as projections."""

    backbone: Factor = 1.0
    head: Factor = 1.0
    distill: Factor = 1.0


class OptimConfig(Strict):
    """AdamW or SGD with polynomial decay of `lr`. `global_batch` and `norm_batch` count samples.

    By default vectors and scalars (norms, biases) are not decayed; `no_decay` names the kinds of parameters instead.
    With `iterations` the run has so many optimiser steps, whatever the size of the data, and `epochs` counts the equal
    parts after which it is validated and saved. With `ema_decay` the moving average of the student is validated, saved
    and deployed.
    """

    lr: Number = Field(6.0e-5, gt=0, le=FLOAT32)
    weight_decay: Number = Field(0.01, ge=0, le=FLOAT32)
    decay_norms_and_biases: bool = False
    epochs: Count = 100
    global_batch: Count = 8
    norm_batch: Count | None = Field(None, description="samples per BatchNorm group; default: global_batch")
    schedule: Literal["to_end", "reference"] = "to_end"
    power: Number = Field(1.0, gt=0, le=100)
    precision: Precision = "fp32"
    optimiser: Literal["adamw", "sgd"] = "adamw"
    momentum: Number | None = Field(None, ge=0, lt=1, description="of sgd; default: 0.9")
    warmup_iterations: Annotated[Integer, Field(ge=0, le=MOST)] = 0
    clip_norm: Number | None = Field(None, gt=0, le=FLOAT32, description="largest norm of the whole gradient of a step")
    lr_multipliers: LrMultipliers = LrMultipliers()
    no_decay: tuple[Kind, ...] | None = None
    iterations: Count | None = Field(None, description="optimiser steps of the run; default: those of its epochs")
    ema_decay: Number | None = Field(None, gt=0, lt=1, description="of the student's moving average; default: none")

    @model_validator(mode="after")
    def _groups_fill_the_batch(self) -> OptimConfig:
        if self.norm_batch and self.global_batch % self.norm_batch:
            raise ValueError(
                f"norm_batch must divide global_batch ({self.global_batch}) but got {self.norm_batch}; "
                "choose one of its divisors"
            )
        return self

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> OptimConfig:
        if self.momentum is not None and self.optimiser != "sgd":
            raise ValueError(
                f"momentum is of sgd, but optimiser is {self.optimiser}; remove momentum or set it to null"
            )
        if self.iterations is not None and self.iterations < max(self.epochs, self.warmup_iterations):
            raise ValueError(
                f"iterations must be at least the epochs ({self.epochs}), which are its parts, and warmup_iterations "
                f"({self.warmup_iterations}), but got {self.iterations}; lower epochs or warmup_iterations"
            )
        if self.no_decay is not None and self.decay_norms_and_biases:
            raise ValueError("no_decay says which parameters do not decay; remove decay_norms_and_biases: true")
        if self.no_decay and len(set(self.no_decay)) < len(self.no_decay):
            raise ValueError(
                f"no_decay must name each kind once, but got {list(self.no_decay)}; remove the repeated one"
            )
        return self

    @property
    def effective_norm_batch(self) -> int:
        """Samples in one BatchNorm group: `norm_batch`, or by default the global batch."""
        return self.norm_batch or self.global_batch

    def workers(self, given: int) -> int:
        """How many of `given` workers a step occupies: a worker needs a sample."""
        return min(given, self.global_batch)

    def group_sizes(self, least: int, most: int, micro_batch: int | None) -> tuple[int, ...]:
        """The numbers of workers from `least` to `most` among which a step can be dealt, ascending.

        `least` must be one of them. Raises UserError.
        """
        self.shares(least, micro_batch)
        found = []
        for workers in range(self.workers(least), self.workers(most) + 1):
            with contextlib.suppress(UserError):
                self.shares(workers, micro_batch)
                found.append(workers)
        return tuple(found)

    def fitting_micro_batch(self, workers: int, micro_batch: int | None) -> int | None:
        """The largest micro-batch of at most `micro_batch` samples for one of `workers`, else the smallest."""
        if micro_batch is None:
            return None
        allowed = self.micro_batches(workers)
        return next((n for n in allowed if n <= micro_batch), allowed[-1])

    def micro_batches(self, workers: int) -> list[int]:
        """The samples that a forward pass of one of `workers` may hold, largest first."""
        share = self.global_batch // self.workers(workers)
        smaller = range(self.effective_norm_batch, share, self.effective_norm_batch)
        return [share, *(n for n in reversed(smaller) if share % n == 0)]

    def shares(self, workers: int, micro_batch: int | None) -> tuple[int, int]:
        """(samples of one worker per step, samples per forward pass).

        A BatchNorm group may be split over workers, but not over the forward passes of a worker. Raises UserError.
        """
        workers = self.workers(workers)
        if self.global_batch % workers:
            raise UserError(
                f"workers must divide optim.global_batch ({self.global_batch}) but got {workers}; change one of them"
            )
        share = self.global_batch // workers
        micro = min(micro_batch or share, share)
        if share % micro:
            raise UserError(f"micro_batch must divide the {share} samples a worker has per step but got {micro}")
        if micro < share and micro % self.effective_norm_batch:
            allowed = ", ".join(map(str, self.micro_batches(workers)))
            raise UserError(
                f"micro_batch {micro} would split BatchNorm groups of {self.effective_norm_batch} samples over "
                f"forward passes; with {counted(workers, 'worker')} take one of {allowed}, or set "
                f"optim.norm_batch to a divisor of {micro}"
            )
        return share, micro
