"""MachineKind: a kind of machine that an autoscaler starts, and which kind it starts for a worker."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from cluster.overrides import LARGEST
from trainer.config import Integer, Number, Strict

_TICKS = 10_000
"""Ray counts resources in ten-thousandths; counting likewise lets 3 x 0.1 CPUs fit into 0.3."""


def ticks(amount: float) -> int:
    """An amount in Ray's smallest units."""
    return round(amount * _TICKS)


def workers_on(cpus: float, gpus: float, cpus_per_worker: float, gpus_per_worker: float) -> int:
    """How many workers a machine holds."""
    fit = ticks(cpus) // ticks(cpus_per_worker)
    if not gpus_per_worker:
        return fit
    if gpus_per_worker < 1:  # a share never spans two GPUs: five runs of 0.4 do not fit on two
        return min(fit, int(gpus) * (_TICKS // ticks(gpus_per_worker)))
    return min(fit, ticks(gpus) // ticks(gpus_per_worker))


class MachineKind(Strict):
    """Machines of one size, as the launcher file states them."""

    cpus: Number = Field(ge=0.01, le=LARGEST)
    gpus: Number = Field(0, ge=0, le=LARGEST)
    most: Integer = Field(ge=1, le=LARGEST)
    """The most of them at once."""
    price_per_hour: Number | None = Field(None, gt=0, le=LARGEST)
    """Price of one of them per hour, in any currency."""

    def holds(self, cpus_per_worker: float, gpus_per_worker: float) -> int:
        """How many workers fit on one machine."""
        return workers_on(self.cpus, self.gpus, cpus_per_worker, gpus_per_worker)


def started_for(types: Mapping[str, MachineKind], cpus_per_worker: float, gpus_per_worker: float) -> list[str]:
    """The types that the autoscaler starts for a worker, the first before the others; empty where it fits on none.

    As Ray's does, it keeps machines with GPUs for those that need them, unless no other holds the worker, and prefers
    the type that the worker fills most.
    """
    fit = [name for name, kind in types.items() if kind.holds(cpus_per_worker, gpus_per_worker)]
    plain = [name for name in fit if not types[name].gpus]
    chosen = fit if gpus_per_worker or not plain else plain
    return sorted(chosen, key=lambda name: (types[name].gpus, types[name].cpus))
