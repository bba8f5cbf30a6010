"""Machine, a node; MachineKind, a kind of machine that an autoscaler starts, and which kind it starts for a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import Field

from cluster.workers import LARGEST
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


class Machine(NamedTuple):
    """One node: its CPUs and GPUs."""

    cpus: float
    gpus: float = 0


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
    """The types that the autoscaler starts for such workers; empty where one fits on none. As Ray's does, it keeps
    machines with GPUs for those that need them, unless no other holds the worker."""
    fit = [name for name, kind in types.items() if kind.holds(cpus_per_worker, gpus_per_worker)]
    plain = [name for name in fit if not types[name].gpus]
    return fit if gpus_per_worker or not plain else plain


def machines_for(
    types: Mapping[str, MachineKind], cpus_per_worker: float, gpus_per_worker: float, workers: int
) -> dict[str, int]:
    """Type -> how many of them the autoscaler starts where so many workers wait for a place."""
    fit = started_for(types, cpus_per_worker, gpus_per_worker)
    found = dict.fromkeys(fit, 0)
    while workers > 0 and (free := [name for name in fit if found[name] < types[name].most]):
        held = {name: min(workers, types[name].holds(cpus_per_worker, gpus_per_worker)) for name in free}
        best = max(free, key=lambda name: (_score(types[name], held[name], cpus_per_worker, gpus_per_worker), name))
        found[best] += 1
        workers -= held[best]
    return {name: count for name, count in found.items() if count}


def _score(kind: MachineKind, workers: int, cpus_per_worker: float, gpus_per_worker: float) -> float:
    """Ray's preference for a machine, by how much of it they would use: a large one that is full before a small one
    (`ray/autoscaler/_private/resource_demand_scheduler.py:_resource_based_utilization_scorer`)."""
    there = ((kind.cpus, workers * cpus_per_worker), (kind.gpus, workers * gpus_per_worker))
    scores = [amount * (used / amount) ** 3 for amount, used in there if amount >= 1]
    return sum(scores) / max(1, len(scores))
