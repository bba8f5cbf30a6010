"""lint(): find settings of a cluster spec that would hang or waste money, before a machine starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from cluster.concurrency import concurrency, grown, shape_of
from cluster.machine_types import Machine
from cluster.spec import ClusterSpec, SpecError, amounts, variants
from trainer.config import counted

TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run")
"""Folders that no two machines share, and that a restart empties."""


class Finding(NamedTuple):
    """One problem: a stable code, what is wrong, and what to write instead."""

    code: str
    message: str
    remedy: str
    line: int | None = None
    """Where it stands in the file that was read."""
    key: str = ""
    """The key of the cluster spec that it is about."""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{self.code}: {where}{self.message}; {self.remedy}"


def lint(spec: ClusterSpec, cpus: float, gpus: float = 0) -> list[Finding]:
    """The problems of a spec; `cpus` and `gpus` are this machine's, which counts where runs would run on it."""
    found = [*_autoscaler(spec), *_folders(spec), *unnamed_bucket(spec)]
    for each in {shape_of(each): each for each in variants(spec).values()}.values():
        found += [_threads(each), *_places(each, Machine(cpus, gpus) if runs_here(each, gpus) else Machine(0, 0))]
    unused = [finding for finding in found if finding and finding.code == "gpus-unused"]
    if any(each.gpus_per_worker for each in variants(spec).values()):
        found = [finding for finding in found if finding not in unused]
    return list(dict.fromkeys(finding for finding in found if finding))


def _places(spec: ClusterSpec, have: Machine) -> list[Finding | None]:
    """Whether the runs of one shape have their places on the machines."""
    if not (have.cpus or spec.scales):
        return []
    machines = grown(spec, [have])
    total = Machine(sum(machine.cpus for machine in machines), sum(machine.gpus for machine in machines))
    return [_fits(spec, *have), idle_gpus(spec, total)]


def runs_here(spec: ClusterSpec, gpus: float) -> bool:
    """Whether a spec is for a machine like this: not for a cluster, nor for GPUs where there are none."""
    return spec.address == "local" and bool(gpus or not spec.gpus_per_worker)


def _fits(spec: ClusterSpec, cpus: float, gpus: float) -> Finding | None:
    try:
        concurrency(spec, cpus, gpus)
    except SpecError as error:
        message, _, remedy = str(error).partition("; ")
        return Finding("cannot-fit", message, remedy, key="workers")
    return None


def _threads(spec: ClusterSpec) -> Finding | None:
    if spec.torch_threads <= max(1, spec.cpus_per_worker):
        return None
    threads, cpus = counted(spec.torch_threads, "thread"), amounts({"CPU": spec.cpus_per_worker})
    message = f"{threads} per worker on {cpus}: runs slow each other down"
    remedy = f"set cpus_per_worker: {spec.torch_threads} or remove threads"
    return Finding("threads-exceed-cpus", message, remedy, key="threads")


def idle_gpus(spec: ClusterSpec, have: Machine) -> Finding | None:
    """GPUs of machines with `have` in all that no run uses, or that the CPUs leave idle."""
    if not have.gpus:
        return None
    if not spec.gpus_per_worker:
        message = f"no run uses the {amounts({'GPU': have.gpus})}"
        return Finding("gpus-unused", message, "set gpus_per_worker: 1", key="gpus_per_worker")
    fit = _runs(spec, have)
    served = _runs(
        spec, have._replace(cpus=have.gpus * spec.least_workers * spec.cpus_per_worker / spec.gpus_per_worker)
    )
    if not 0 < fit < served:
        return None
    share = have.cpus / (served * spec.least_workers)
    share = float(int(share)) if share >= 1 else int(share * 100) / 100
    message = (
        f"the GPUs have room for {counted(served, 'run')} at once but the CPUs for {fit}: the other GPUs stay idle"
    )
    return Finding("gpus-starved", message, f"set cpus_per_worker: {share:g}", key="cpus_per_worker")


def _runs(spec: ClusterSpec, have: Machine) -> int:
    try:
        as_many_as_fit: dict[str, object] = {
            "concurrency": "auto",
            "max_runs": None,
            "max_cpus": None,
            "max_gpus": None,
            "machine_types": {},
        }
        return concurrency(spec.model_copy(update=as_many_as_fit), *have)
    except SpecError:
        return 0


def _autoscaler(spec: ClusterSpec) -> list[Finding | None]:
    if not spec.scales:
        return [None]
    absent = Finding(
        "no-autoscaler",
        f"max_cpus and max_gpus are for an autoscaler, but address {spec.address} has none",
        "set address: auto where a cluster with an autoscaler runs, or remove max_cpus and max_gpus",
        key="address",
    )
    unknown = Finding(
        "machine-unknown",
        "max_cpus and max_gpus say how much the autoscaler may add in all, but not how large a machine is: a worker "
        "that fits on none would wait forever",
        "set cpus_per_machine and gpus_per_machine to what the launcher file states",
        key="max_cpus",
    )
    return [
        absent if spec.address == "local" else None,
        unknown if spec.cpus_per_machine is None and not spec.machine_types and spec.address != "local" else None,
    ]


def unnamed_bucket(spec: ClusterSpec) -> list[Finding]:
    """The bucket of a packaged spec, where it is not filled in."""
    if "://fill-in-" not in (spec.store or ""):
        return []
    message = f"store of the cluster spec is {spec.store}, a placeholder"
    return [Finding("placeholder", message, "fill in the bucket's name", key="store")]


def _folders(spec: ClusterSpec) -> list[Finding | None]:
    if spec.address == "local":
        return [
            Finding(
                "data-missing",
                f"data_roots.{name} is not a folder here: {folder}",
                "correct the path or remove it",
                key="data_roots",
            )
            for name, folder in spec.data_roots.items()
            if not Path(folder).is_dir()
        ]
    if spec.store is None and not os.environ.get("TRANSKD_STORE"):
        message = "store is not set, and the default, a folder under home, differs between machines"
        return [
            Finding(
                "store-not-shared",
                message,
                "set store: to a folder that every machine mounts, or a bucket",
                key="store",
            )
        ]
    if spec.store_folder and any(spec.store_folder.is_relative_to(folder) for folder in TEMPORARY):
        message = f"store is {spec.store}, which every machine has for itself and empties when it starts"
        return [Finding("store-temporary", message, "set store: to a folder that every machine mounts", key="store")]
    return [None]
