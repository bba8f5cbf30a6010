"""A group of pods of a RayCluster: its machines, mounts and problems."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from cluster.launchers.instances import instance_findings
from cluster.launchers.launcher_file import (
    HEAD_GIB,
    SHM_GIB,
    Document,
    MachineType,
    array,
    idle_findings,
    table,
)
from cluster.launchers.quantities import amount
from cluster.launchers.spot import is_spot_selector
from cluster.lint import Finding
from cluster.machine_types import Machine

LEAST_MEMORY = 64 * 2**20
"""Less memory, in bytes, was meant in another unit."""
GRACE_S = 60
"""A worker pod that is evicted has so long to end: Kubernetes' 30 s are short for a checkpoint on a shared volume."""
_NAME = re.compile("[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""Source: DNS labels of RFC 1123, as in https://kubernetes.io/docs/concepts/overview/working-with-objects/names."""
INSTANCE_LABEL = "node.kubernetes.io/instance-type"
AZURE_SPOT = "kubernetes.azure.com/scalesetpriority"


def object_store(memory: float, shm: float) -> float:
    """The size of Ray's object store in bytes: 0.3 of the memory, capped by /dev/shm but not below 10 GB.

    Source: `resolve_object_store_memory` in ray/_private/utils.py.
    """
    return min(0.3 * memory, max(1e10, 0.95 * shm))


class Pod:
    """One group of pods; what has a wrong type counts as absent."""

    def __init__(self, document: Document, group: dict[str, Any], keys: tuple[Any, ...]) -> None:
        self.document, self.group, self.keys = document, group, keys
        self.head = "headGroupSpec" in keys
        self.name = "head" if self.head else str(group.get("groupName", "worker"))
        self.spec = table(table(group.get("template")).get("spec"))
        containers = [table(each) for each in array(self.spec.get("containers"))]
        named = (each for each in containers if "ray" in str(each.get("name")))
        self.container = next(named, containers[0] if containers else {})
        self.limits = table(table(self.container.get("resources")).get("limits"))
        params = table(group.get("rayStartParams"))
        self.machine = Machine(
            math.ceil(amount(params.get("num-cpus", self.limits.get("cpu"))) or 0),
            math.ceil(amount(params.get("num-gpus", self.limits.get("nvidia.com/gpu"))) or 0),
        )
        volumes = {str(table(volume).get("name")): table(volume) for volume in array(self.spec.get("volumes"))}
        mounts = [table(mount) for mount in array(self.container.get("volumeMounts"))]
        self.mounts = {str(mount.get("mountPath")): volumes.get(str(mount.get("name")), {}) for mount in mounts}
        self.read_only = {path for path, volume in self.mounts.items() if _is_read_only(volume)}
        self.read_only |= {str(mount.get("mountPath")) for mount in mounts if mount.get("readOnly") is True}

    @property
    def counts(self) -> tuple[int, int]:
        """The smallest and the largest number of these pods."""
        if self.head:
            return 1, 1
        given = [self.group.get(name, default) for name, default in (("minReplicas", 0), ("maxReplicas", 0))]
        least, most = (number if isinstance(number, int) else 0 for number in given)
        return least, most

    @property
    def kind(self) -> MachineType:
        """The group as a machine type. More pods than can be are counted as the most that can be."""
        least, most = self.counts
        priority = self.group.get("priority")
        spot = is_spot_selector(table(self.spec.get("nodeSelector")))
        whole = priority if isinstance(priority, int) else 0
        return MachineType(self.name, self.machine, least, most, self.head, self.line("groupName"), spot, whole)

    @property
    def fixed(self) -> bool:
        """Whether the group begins at its full size, so that it needs no autoscaler."""
        return self.head or self.group.get("replicas") == self.counts[1]

    def line(self, *more: Any) -> int | None:
        return self.document.line(*self.keys, *more)

    def findings(self) -> Iterator[Finding]:
        """What would hang, fail or waste money in this group."""
        container = ("template", "spec", "containers", 0)
        gpus = amount(self.limits.get("nvidia.com/gpu")) or 0
        if self.machine.gpus > gpus:
            message = f"{self.name} tells Ray of {self.machine.gpus:g} GPUs but its container has {gpus:g}"
            remedy = f"set resources.limits of nvidia.com/gpu to {self.machine.gpus:g}"
            yield Finding("gpu-missing", message, remedy, self.line("rayStartParams", "num-gpus"))
        cpus = amount(self.limits.get("cpu"))
        if cpus and self.machine.cpus > math.ceil(cpus):
            message = f"{self.name} tells Ray of {self.machine.cpus:g} CPUs but its container has {cpus:g}"
            yield Finding("cpus-exceed", message, "raise the limit", self.line("rayStartParams", "num-cpus"))
        instance = table(self.spec.get("nodeSelector")).get(INSTANCE_LABEL)
        if isinstance(instance, str):
            line = self.line("template", "spec", "nodeSelector")
            yield from instance_findings(self.name, instance, self.machine, line, head=self.head)
        yield from self._names()
        yield from self._quantities()
        yield from self._replicas()
        yield from self._shared_memory()
        memory = amount(self.limits.get("memory"))
        if self.head and memory is not None and memory < HEAD_GIB * 2**30:
            message = f"the head has {memory / 2**30:.3g} GiB of memory, too little for Ray, the driver and MLflow"
            line = self.line(*container, "resources", "limits", "memory")
            yield Finding("head-small", message, f"give it {HEAD_GIB}Gi or more", line)
        grace = self.spec.get("terminationGracePeriodSeconds", 30)
        if not self.head and isinstance(grace, int) and grace < GRACE_S:
            message = f"a pod of {self.name} that is evicted has {grace} s to write its checkpoint"
            line = self.line("template", "spec", "terminationGracePeriodSeconds")
            remedy = f"set terminationGracePeriodSeconds: {GRACE_S} or more"
            yield Finding("grace-period-short", message, remedy, line)
        idle = self.group.get("idleTimeoutSeconds")
        yield from idle_findings(idle, f"{self.name}.idleTimeoutSeconds", self.line("idleTimeoutSeconds"))
        yield from self._taints()

    def _names(self) -> Iterator[Finding]:
        """Names of which Kubernetes makes no pod, and containers before that of Ray."""
        first, *others = (str(table(item).get("name")) for item in array(self.spec.get("containers")) or [{}])
        if "ray" not in first and any("ray" in name for name in others):
            message = f"the first container of {self.name} is {first}, and KubeRay runs Ray in the first"
            line = self.line("template", "spec", "containers", 0, "name")
            yield Finding("wrong-value", message, "write Ray's container first", line)
        named: list[tuple[Any, tuple[Any, ...]]]
        named = [] if self.head else [(self.group.get("groupName"), ("groupName",))]
        for kind in ("initContainers", "containers", "volumes"):
            items = enumerate(array(self.spec.get(kind)))
            named += [(table(item).get("name"), ("template", "spec", kind, number, "name")) for number, item in items]
        for name, keys in named:
            if name is not None and not (_NAME.fullmatch(str(name)) and len(str(name)) <= 63):
                what = "group" if keys[-1] == "groupName" else f"{keys[-3][:-1]} of {self.name}"
                message = f"the {what} is named {name}, and Kubernetes makes no pod with such a name"
                remedy = "write at most 63 small letters, digits and hyphens, the first and last no hyphen"
                yield Finding("wrong-value", message, remedy, self.line(*keys))

    def _quantities(self) -> Iterator[Finding]:
        """Amounts that Kubernetes cannot read, requests above limits, and memory that was meant in larger units."""
        resources = table(self.container.get("resources"))
        at = ("template", "spec", "containers", 0, "resources")
        for kind in ("requests", "limits"):
            for name, quantity in table(resources.get(kind)).items():
                line, number = self.line(*at, kind, name), amount(quantity)
                if number is None:
                    message = f"{kind} of {self.name}: {name} {quantity} is no quantity of Kubernetes"
                    yield Finding("wrong-quantity", message, "write one such as 16Gi, 2 or 500m", line)
                elif name == "memory" and number < LEAST_MEMORY:
                    message = f"{kind} of {self.name}: memory {quantity} is {number:g} bytes"
                    yield Finding("memory-small", message, "write the unit, as in 16Gi", line)
                limit = amount(self.limits.get(name))
                if kind == "limits" or number is None:
                    continue
                if limit is not None and number > limit:
                    message = f"{self.name} requests {name} {quantity}, above its limit {self.limits[name]}"
                    yield Finding("limit-exceeded", message, "lower the request: Kubernetes refuses the pod", line)
                elif "/" in str(name) and number != limit:
                    message = (
                        f"{self.name} requests {name} {quantity}, and its limit is {self.limits.get(name, 'absent')}"
                    )
                    yield Finding("gpu-requests-differ", message, "write equal ones: Kubernetes refuses the pod", line)
                elif name == "cpu" and not self.head and math.ceil(number) < self.machine.cpus:
                    message = f"{self.name} tells Ray of {self.machine.cpus:g} CPUs but requests {quantity}"
                    remedy = f"request {self.machine.cpus:g}: else a node takes more pods than it has CPUs for"
                    yield Finding("cpus-overbooked", message, remedy, line)
        if "memory" not in self.limits and self.container:
            message = f"{self.name} has no limit of memory: Ray counts the whole node's as its own"
            yield Finding("memory-unstated", message, "set resources.limits.memory", self.line(*at, "limits"))

    def _replicas(self) -> Iterator[Finding]:
        replicas, (least, most) = self.group.get("replicas"), self.counts
        if not self.head and isinstance(replicas, int) and not least <= replicas <= most and least <= most:
            message = f"{self.name} has replicas {replicas}, outside of minReplicas {least} and maxReplicas {most}"
            yield Finding("limit-exceeded", message, "set replicas between them", self.line("replicas"))

    def _shared_memory(self) -> Iterator[Finding]:
        if "emptyDir" not in self.mounts.get("/dev/shm", {}):
            message = f"/dev/shm of {self.name} has the container's default of 64 MB, too little for Ray and PyTorch"
            line = self.line("template", "spec", "containers", 0)
            yield Finding("shm-small", message, "mount an emptyDir with medium: Memory there", line)
            return
        volume = table(self.mounts["/dev/shm"]["emptyDir"])
        number = array(self.spec.get("volumes")).index(self.mounts["/dev/shm"])
        line = self.line("template", "spec", "volumes", number, "emptyDir")
        size = amount(volume.get("sizeLimit"))
        if size is None and "sizeLimit" in volume:
            message = f"sizeLimit {volume['sizeLimit']} of {self.name}'s /dev/shm is no quantity of Kubernetes"
            yield Finding("wrong-quantity", message, f"write one such as {SHM_GIB}Gi", line)
        if volume.get("medium") != "Memory":
            message = f"/dev/shm of {self.name} lies on the node's disk"
            yield Finding("shm-small", message, "set medium: Memory", line)
            return
        memory = amount(self.limits.get("memory")) or 0
        if size is None:
            return
        if size < SHM_GIB * 2**30:
            message = f"/dev/shm of {self.name} has {size / 2**30:.3g} GiB, too little for Ray and PyTorch"
            yield Finding("shm-small", message, f"set sizeLimit: {SHM_GIB}Gi or more", line)
        elif size < (store := object_store(memory, size)):
            message = (
                f"/dev/shm of {self.name} has {size / 2**30:.3g} GiB and Ray's object store {store / 2**30:.3g}, which "
                "then lies on the disk"
            )
            remedy = f"set sizeLimit: {math.ceil(store / 2**30)}Gi or more, or less memory"
            yield Finding("shm-small", message, remedy, line)
        elif LEAST_MEMORY <= memory <= size:
            message = f"/dev/shm of {self.name} may fill its memory of {memory / 2**30:.3g} GiB, which ends the pod"
            yield Finding("shm-exceeds-memory", message, "set a sizeLimit of half the memory or less", line)

    def _taints(self) -> Iterator[Finding]:
        """Nodes that keep pods off which do not say that they want them."""
        wanted = [("nvidia.com/gpu", "GPU nodes")] if self.machine.gpus and not self.head else []
        selector = table(self.spec.get("nodeSelector"))
        wanted += [(AZURE_SPOT, "AKS's spot nodes")] if selector.get(AZURE_SPOT) == "spot" else []
        tolerated = [table(item).get("key") for item in array(self.spec.get("tolerations"))]
        for key, nodes in wanted:
            if key not in tolerated and None not in tolerated:
                message = f"{self.name} does not tolerate the taint {key} of {nodes}: its pods would wait forever"
                remedy = f"add to tolerations: {{key: {key}, operator: Exists, effect: NoSchedule}}"
                yield Finding("no-toleration", message, remedy, self.line("template", "spec", "tolerations"))


def _is_read_only(volume: dict[str, Any]) -> bool:
    return any(table(source).get("readOnly") is True for source in volume.values())
