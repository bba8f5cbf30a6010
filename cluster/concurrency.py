"""How many runs of a cluster spec train at once, on the machines there are and on those that an autoscaler may add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cluster.machine_types import Machine, started_for, ticks, workers_on
from cluster.spec import ClusterSpec, SpecError, amounts
from trainer.config import counted


class Shape(NamedTuple):
    """What a run is given; runs of one shape can take each other's place."""

    workers: int | tuple[int, int]
    """A range is a shape of its own; the places of its runs are counted with its lower number."""
    cpus_per_worker: float
    gpus_per_worker: float


def shape_of(spec: ClusterSpec) -> Shape:
    """The shape of a spec's runs, but for its overrides."""
    return Shape(spec.workers, spec.cpus_per_worker, spec.gpus_per_worker)


def footprint(spec: ClusterSpec) -> dict[str, float]:
    """Ray resources that one run needs, all its workers together: `{"CPU": 4.0, "GPU": 2.0}`, without keys for zero."""
    need = {"CPU": spec.least_workers * spec.cpus_per_worker, "GPU": spec.least_workers * spec.gpus_per_worker}
    return {name: round(amount, 4) for name, amount in need.items() if amount}


def concurrency(spec: ClusterSpec, cpus: float, gpus: float = 0) -> int:
    """Runs at once on `cpus` and `gpus`, or on the spec's `max_cpus` and `max_gpus` where these are larger, or on the
    machines that make these up where the spec states their size.

    Raises SpecError when no run fits, or fewer than `concurrency`: such a study would wait forever.
    """
    return concurrency_on(
        spec, grown(spec, [Machine(cpus, gpus)] if spec.cpus_per_machine is None and not spec.machine_types else [])
    )


def grown(spec: ClusterSpec, machines: Sequence[Machine]) -> Sequence[Machine]:
    """The machines that there are or, with an autoscaler, at most will be.

    Where the spec does not state a machine's size, the most that may be is counted as one machine.
    """
    if not spec.scales:
        return machines
    if spec.machine_types:
        return _of_types(spec, machines)
    cpus, gpus = sum(machine.cpus for machine in machines), sum(machine.gpus for machine in machines)
    if spec.cpus_per_machine is None:
        return [Machine(max(cpus, spec.max_cpus or 0), max(gpus, spec.max_gpus or 0))]
    limits = ((spec.max_cpus, spec.cpus_per_machine), (spec.max_gpus, spec.gpus_per_machine))
    most = min((ticks(limit) // ticks(each) for limit, each in limits if limit is not None and each), default=0)
    there = [machine for machine in machines if machine.cpus or machine.gpus]
    added = [Machine(spec.cpus_per_machine, spec.gpus_per_machine)] * max(0, most - len(there))
    return [*there, *added]


def _of_types(spec: ClusterSpec, machines: Sequence[Machine]) -> list[Machine]:
    """The machines of other sizes that are there, and all that the autoscaler may start for the spec's runs."""
    sizes = [Machine(kind.cpus, kind.gpus) for kind in spec.machine_types.values()]
    others = [machine for machine in machines if (machine.cpus or machine.gpus) and machine not in sizes]
    chosen = started_for(spec.machine_types, spec.cpus_per_worker, spec.gpus_per_worker)
    kinds = [spec.machine_types[name] for name in chosen]
    return [*others, *(Machine(kind.cpus, kind.gpus) for kind in kinds for _ in range(kind.most))]


def check_a_machine_fits(spec: ClusterSpec, machines: Sequence[Machine]) -> None:
    """Refuse an autoscaler whose machines may be too small for a worker: their size is not stated, and none that is
    there holds one. Raises SpecError."""
    stated = spec.cpus_per_machine is not None or spec.machine_types or spec.address == "local" or not spec.scales
    if not stated and not any(_workers_on(spec, machine) for machine in machines):
        worker = amounts({"CPU": spec.cpus_per_worker, "GPU": spec.gpus_per_worker})
        raise SpecError(
            f"a worker needs {worker}, no machine of the cluster has room for it, and the spec does not say how large "
            "those are that the autoscaler adds; set cpus_per_machine (and gpus_per_machine)"
        )


def concurrency_on(spec: ClusterSpec, machines: Sequence[Machine]) -> int:
    """Runs at once on these machines; a worker cannot span two. Raises SpecError as `concurrency` does."""
    fit = sum(_workers_on(spec, machine) for machine in machines) // spec.least_workers
    if not fit:
        raise SpecError(_why_none_fits(spec, machines))
    if spec.concurrency == "auto":
        return min(fit, spec.max_runs or fit)
    if spec.concurrency > fit:
        raise SpecError(
            f"concurrency is {spec.concurrency}, but only {counted(fit, 'run')} of {amounts(footprint(spec))} "
            f"{'fits' if fit == 1 else 'fit'} on {_have(machines)}; lower concurrency or remove the line"
        )
    return spec.concurrency


def _workers_on(spec: ClusterSpec, machine: Machine) -> int:
    return workers_on(machine.cpus, machine.gpus, spec.cpus_per_worker, spec.gpus_per_worker)


def _why_none_fits(spec: ClusterSpec, machines: Sequence[Machine]) -> str:
    total = {"CPU": sum(m.cpus for m in machines), "GPU": sum(m.gpus for m in machines)}
    worker = {"CPU": spec.cpus_per_worker, "GPU": spec.gpus_per_worker}
    workers = counted(spec.least_workers, "worker")
    for name, need in footprint(spec).items():
        if ticks(need) > ticks(total[name]):
            field = f"{name.lower()}s_per_worker"
            remedy = f"lower {field}" if spec.least_workers == 1 else f"lower workers or {field}"
            remedy += f", or raise {_limit(spec, name)}" if spec.scales else ""
            there = "there is 1" if total[name] == 1 else f"there are {total[name]:g}"
            return f"a run needs {amounts({name: need})} ({workers} x {worker[name]:g}) but {there}; {remedy}"
    return (
        f"{workers} of {amounts(worker)} cannot be placed on {_have(machines)}: a worker cannot span two machines; "
        "lower workers, cpus_per_worker or gpus_per_worker"
    )


def _limit(spec: ClusterSpec, resource: str) -> str:
    return "most of a machine type" if spec.machine_types else f"max_{resource.lower()}s"


def _have(machines: Sequence[Machine]) -> str:
    each = [amounts({"CPU": machine.cpus, "GPU": machine.gpus}) for machine in machines]
    return f"{len(each)} machines of {each[0]}" if len(each) > 1 and len(set(each)) == 1 else " + ".join(each)
