"""Machine-hours and price of a study by machine type: how many machines each shape of its runs needs, and how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cluster.concurrency import shape_of
from cluster.machine_types import MachineKind, machines_for
from cluster.spec import ClusterSpec, amounts
from orchestrator.prepare.estimate import Share
from orchestrator.prepare.work_left import Range


class MachineHours(NamedTuple):
    """What a study needs of one machine type."""

    machines: int
    """The most at once."""
    hours: Range
    """Of all of them together while runs train on them, without boots and idle minutes."""
    price: Range | None
    """None where the type has no price."""


def types_of(spec: ClusterSpec) -> dict[str, MachineKind]:
    """The machine types that a spec's autoscaler starts, by name; empty where the spec states none."""
    if spec.machine_types or spec.cpus_per_machine is None:
        return dict(spec.machine_types)
    cpus, gpus = spec.cpus_per_machine, spec.gpus_per_machine
    limits = [limit / each for limit, each in ((spec.max_cpus, cpus), (spec.max_gpus, gpus)) if limit and each]
    price = spec.price_per_gpu_hour * gpus if spec.price_per_gpu_hour else None
    size = amounts({"CPU": cpus, "GPU": gpus})
    return {size: MachineKind(cpus=cpus, gpus=gpus, most=max(1, int(min(limits))), price_per_hour=price or None)}


def machine_hours(shares: Sequence[Share], types: Mapping[str, MachineKind]) -> dict[str, MachineHours]:
    """Machine type -> what the shares of a study need of it; workers train where they are started first."""
    machines = dict.fromkeys(types, 0)
    hours = dict.fromkeys(types, Range(0, 0, 0))
    for share in shares:
        at_once = share.workers_at_once
        for name, count in machines_for(types, *shape_of(share.spec)[1:], at_once).items():
            machines[name] = min(types[name].most, machines[name] + count)
            part = share.worker_hours.times(count / at_once)
            hours[name] = Range(*map(sum, zip(hours[name], part, strict=True)))
    return {
        name: MachineHours(machines[name], hours[name], hours[name].times(price) if price else None)
        for name, price in ((name, types[name].price_per_hour) for name in types)
        if machines[name]
    }
