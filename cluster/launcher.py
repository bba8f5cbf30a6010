"""Launcher files (`ray up`, KubeRay): the machines they start, and whether the runs of a cluster spec fit on them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cluster.lint import Finding
from cluster.spec import ClusterSpec, Machine, SpecError, concurrency_on
from trainer.config import message_of

_PLACEHOLDER = re.compile(r"\b(?:ami|fs)-0{17}|[\w.-]*example\.com[\w./:-]*|\bfill-in\b")


class MachineType(NamedTuple):
    """A node type of a launcher with its smallest and largest count; the head has `least` = `most` = 1."""

    name: str
    machine: Machine
    least: int
    most: int


class Launcher(NamedTuple):
    """The parts of a launcher file that lint checks. `mounts`: folders that all machines share."""

    types: list[MachineType]
    mounts: list[str]
    findings: list[Finding]
    """Problems of the file itself, independent of the spec."""


def read(path: Path) -> Launcher:
    """Parse a launcher file. Raises SpecError unless it is for `ray up`, or a RayJob or RayCluster."""
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8-sig")) if document]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"cannot read launcher file {path}: {message_of(error)}") from None
    for document in documents:
        if "cluster_name" in document:
            return _with_placeholders(_ray_up(document), documents)
        if document.get("kind") in ("RayJob", "RayCluster"):
            spec = document["spec"]
            return _with_placeholders(_kuberay(spec.get("rayClusterSpec", spec)), documents)
    raise SpecError(f"{path} is no launcher file: expected `cluster_name:` (ray up) or `kind: RayJob` (kubectl apply)")


def is_launcher(path: Path) -> bool:
    """Whether a file is for `ray up` or `kubectl apply` instead of a cluster spec."""
    try:
        return bool(re.search(r"^(cluster_name|apiVersion):", path.read_text(encoding="utf-8-sig"), re.MULTILINE))
    except (OSError, UnicodeDecodeError):
        return False


def spec_beside(path: Path) -> str:
    """The name of a launcher file's cluster spec: `aws` for `ray-up-aws.yaml`."""
    return path.stem.removeprefix("ray-up-").removeprefix("kubectl-")


def lint_launcher(launcher: Launcher, spec: ClusterSpec) -> list[Finding]:
    """Problems that would hang a study or waste money when `spec` runs on the machines of `launcher`."""
    return [*launcher.findings, *_fits(launcher, spec), *_reaches_the_store(launcher, spec)]


def _fits(launcher: Launcher, spec: ClusterSpec) -> Iterator[Finding]:
    machines = [kind.machine for kind in launcher.types for _ in range(kind.most)]
    try:
        concurrency_on(spec, machines)
    except SpecError as error:
        message, _, remedy = str(error).partition("; ")
        yield Finding("cannot-fit", message, remedy)
    for name, limit, most in (
        ("max_cpus", spec.max_cpus, sum(machine.cpus for machine in machines)),
        ("max_gpus", spec.max_gpus, sum(machine.gpus for machine in machines)),
    ):
        if limit is not None and limit != most:
            yield Finding(
                "limits-differ", f"{name} is {limit:g} but the launcher starts up to {most:g}", f"set {name}: {most:g}"
            )


def _reaches_the_store(launcher: Launcher, spec: ClusterSpec) -> Iterator[Finding]:
    for name, folder in [("store", spec.store), *((f"data_roots.{k}", v) for k, v in spec.data_roots.items())]:
        if folder and not any(Path(folder).is_relative_to(mount) for mount in launcher.mounts):
            mounts = ", ".join(launcher.mounts) or "nothing"
            yield Finding("not-mounted", f"{name} is {folder} but machines share {mounts}", "mount it on every machine")


def _with_placeholders(launcher: Launcher, documents: list[Any]) -> Launcher:
    found = sorted(set(re.findall(_PLACEHOLDER, json.dumps(documents))))
    left = [
        Finding("placeholder", f"{text} is a placeholder", "fill it in as the comment beside it says") for text in found
    ]
    return launcher._replace(findings=[*launcher.findings, *left])


def _ray_up(config: dict[str, Any]) -> Launcher:
    found = []
    kinds = config.get("available_node_types", {})
    head = config.get("head_node_type")
    limit = config.get("max_workers", 2)
    provider = config.get("provider") or {}
    if head not in kinds:
        found.append(
            Finding("head-unknown", f"head_node_type {head} is not in available_node_types", "name one of them")
        )
    if provider.get("type") in ("aws", "gcp") and not provider.get("region"):
        found.append(
            Finding("region-missing", "provider has no region: Ray would use its default", "set provider.region")
        )
    types = []
    for name, kind in kinds.items():
        resources = kind.get("resources")
        if not resources or "CPU" not in resources:
            message = f"{name} states no resources: whether a run fits would be known only once the machine runs"
            found.append(
                Finding("resources-unstated", message, f"set available_node_types.{name}.resources: {{CPU: N}}")
            )
            resources = {}
        least, most = (1, 1) if name == head else (kind.get("min_workers", 0), kind.get("max_workers", limit))
        if name != head and most > limit:
            message = f"max_workers of {name} is {most} but that of the cluster is {limit}: the smaller one applies"
            found.append(Finding("limit-exceeded", message, f"set max_workers: {most} at the top"))
        machine = Machine(resources.get("CPU", 0), resources.get("GPU", 0))
        types.append(MachineType(name, machine, least, min(most, limit)))
    commands = " ".join([*config.get("initialization_commands", []), *config.get("setup_commands", [])])
    mounts = re.findall(r"\bmount -t nfs\S*\s.*?:/\S*\s+(/\S+)", commands)
    return Launcher(types, mounts, [*found, *_always_on(types)])


def _kuberay(cluster: dict[str, Any]) -> Launcher:
    found = []
    if not cluster.get("enableInTreeAutoscaling"):
        found.append(
            Finding(
                "no-autoscaler",
                "enableInTreeAutoscaling is off: the cluster keeps its initial size",
                "set enableInTreeAutoscaling: true",
            )
        )
    types, shared = [], []
    for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]:
        name = group.get("groupName", "head")
        pod = group["template"]["spec"]
        container = pod["containers"][0]
        params, limits = group.get("rayStartParams", {}), container.get("resources", {}).get("limits", {})
        machine = Machine(
            _amount(params.get("num-cpus", limits.get("cpu", "0"))),
            _amount(params.get("num-gpus", limits.get("nvidia.com/gpu", "0"))),
        )
        least, most = (1, 1) if name == "head" else (group["minReplicas"], group["maxReplicas"])
        types.append(MachineType(name, machine, least, most))
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container.get("volumeMounts", [])}
        shared.append({path for path, volume in mounts.items() if "persistentVolumeClaim" in volume})
        if "emptyDir" not in mounts.get("/dev/shm", {}):
            message = f"/dev/shm of {name} has the container's default of 64 MB, too little for Ray and PyTorch"
            found.append(Finding("shm-small", message, "mount an emptyDir with medium: Memory there"))
    return Launcher(types, sorted(set.intersection(*shared)), [*found, *_always_on(types)])


def _always_on(types: list[MachineType]) -> list[Finding]:
    return [
        Finding(
            "always-on", f"{kind.least} of {kind.name} run while no study does", f"set the minimum of {kind.name} to 0"
        )
        for kind in types
        if kind.least and kind.machine.gpus
    ]


def _amount(quantity: str) -> int:
    """A Kubernetes quantity of CPUs or GPUs as KubeRay's autoscaler counts it, rounded up: `500m` is 1."""
    return math.ceil(float(quantity.removesuffix("m")) / 1000) if quantity.endswith("m") else math.ceil(float(quantity))
