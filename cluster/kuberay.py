"""KubeRay's RayJobs and RayClusters: their machine types, shared folders and problems."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from cluster.launcher_file import (
    HEAD_GIB,
    SHM_GIB,
    Document,
    Launcher,
    MachineType,
    array,
    instance_findings,
    other_versions,
    table,
    too_eager,
    wrong_counts,
)
from cluster.lint import Finding
from cluster.quantities import amount
from cluster.schemas import check_kuberay
from cluster.spec import Machine

API = "ray.io/v1"
LEAST_MEMORY = 64 * 2**20
"""Less memory, in bytes, was meant in another unit."""
GRACE_S = 60
"""A worker pod that is evicted has so long to end: Kubernetes' 30 s are short for a checkpoint on a shared volume."""
_SHARED = ("persistentVolumeClaim", "nfs", "cephfs", "csi", "azureFile", "glusterfs")
"""Kinds of volumes that several nodes may mount."""
INSTANCE_LABEL = "node.kubernetes.io/instance-type"


def kuberay(document: Document, others: Sequence[Document]) -> Launcher:
    """The machines of a RayJob or RayCluster; `others` are the file's other documents, its volume claims among them."""
    job = document.data.get("kind") == "RayJob"
    found = [*check_kuberay(document, job=job), *other_versions(document), *_claims(others)]
    keys: tuple[Any, ...] = ("spec", "rayClusterSpec") if job else ("spec",)
    cluster = table(document.data.get("spec"))
    if job:
        cluster = table(cluster.get("rayClusterSpec"))
    found += _whole(document, cluster, keys)
    if job:
        found += _job(document)
    types: list[MachineType] = []
    shared, minima = [], {}
    locked: set[str] = set()
    workers = array(cluster.get("workerGroupSpecs"))
    places = [("headGroupSpec",), *(("workerGroupSpecs", number) for number in range(len(workers)))]
    for place, group in zip(places, [cluster.get("headGroupSpec"), *workers], strict=True):
        pod = _Pod(document, table(group), (*keys, *place))
        types.append(MachineType(pod.name, pod.machine, *pod.counts))
        minima[pod.name] = document.line(*pod.keys, "minReplicas")
        shared.append({path for path, volume in pod.mounts.items() if any(kind in volume for kind in _SHARED)})
        locked |= pod.read_only
        found += [*pod.findings(), *_unknown_claims(pod, others)]
    study, spec = _command(document) if job else ("", "")
    counts = wrong_counts(types, minima)
    return Launcher(types, sorted(set.intersection(*shared)), [*found, *counts], tuple(sorted(locked)), spec, study)


class _Pod:
    """One group of pods; what has a wrong type counts as absent."""

    def __init__(self, document: Document, group: dict[str, Any], keys: tuple[Any, ...]) -> None:
        self.document, self.group, self.keys = document, group, keys
        self.head = "headGroupSpec" in keys
        self.name = "head" if self.head else str(group.get("groupName", "worker"))
        self.spec = table(table(group.get("template")).get("spec"))
        self.container = table((array(self.spec.get("containers")) or [None])[0])
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
        yield from too_eager(idle, f"{self.name}.idleTimeoutSeconds", self.line("idleTimeoutSeconds"))

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
                if kind == "requests" and number is not None and limit is not None and number > limit:
                    message = f"{self.name} requests {name} {quantity}, above its limit {self.limits[name]}"
                    yield Finding("limit-exceeded", message, "lower the request: Kubernetes refuses the pod", line)

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
        line = self.line("template", "spec", "volumes")
        size = amount(volume.get("sizeLimit"))
        if size is None and "sizeLimit" in volume:
            message = f"sizeLimit {volume['sizeLimit']} of {self.name}'s /dev/shm is no quantity of Kubernetes"
            yield Finding("wrong-quantity", message, f"write one such as {SHM_GIB}Gi", line)
        if volume.get("medium") != "Memory":
            message = f"/dev/shm of {self.name} lies on the node's disk"
            yield Finding("shm-small", message, "set medium: Memory", line)
        elif size is not None and size < SHM_GIB * 2**30:
            message = f"/dev/shm of {self.name} has {size / 2**30:.3g} GiB, too little for Ray and PyTorch"
            yield Finding("shm-small", message, f"set sizeLimit: {SHM_GIB}Gi or more", line)


def _whole(document: Document, cluster: dict[str, Any], keys: tuple[Any, ...]) -> Iterator[Finding]:
    if not cluster.get("enableInTreeAutoscaling"):
        message = "enableInTreeAutoscaling is off: the cluster keeps its initial size"
        yield Finding("no-autoscaler", message, "set enableInTreeAutoscaling: true", document.line(*keys))
    if table(cluster.get("authOptions")).get("mode") != "token":
        message = "Ray starts without a token: whoever reaches one of its ports runs code in the pods"
        line = document.line(*keys, "authOptions")
        yield Finding("no-token", message, "set authOptions: {mode: token}", line)
    idle = table(cluster.get("autoscalerOptions")).get("idleTimeoutSeconds")
    line = document.line(*keys, "autoscalerOptions", "idleTimeoutSeconds")
    yield from too_eager(idle, "autoscalerOptions.idleTimeoutSeconds", line)


def _job(document: Document) -> Iterator[Finding]:
    job = table(document.data.get("spec"))
    if document.data.get("apiVersion") != API:
        message = f"apiVersion is {document.data.get('apiVersion')}, and the fields are those of {API}"
        yield Finding("wrong-value", message, f"set apiVersion: {API}", document.line("apiVersion"))
    if job.get("shutdownAfterJobFinishes") is not True:
        message = "the machines stay when the study has ended"
        remedy = "set shutdownAfterJobFinishes: true"
        yield Finding("stays-up", message, remedy, document.line("spec", "shutdownAfterJobFinishes"))
    study, spec = _command(document)
    if study and spec in ("", "local"):
        message = "entrypoint names no cluster spec: runs would train on the head alone"
        yield Finding("entrypoint-local", message, "add --cluster SPEC", document.line("spec", "entrypoint"))


def _command(document: Document) -> tuple[str, str]:
    """STUDY and SPEC of the entrypoint `transkd run STUDY --cluster SPEC`; empty where they are not there."""
    try:
        words = shlex.split(str(table(document.data.get("spec")).get("entrypoint", "")).replace("=", " "))
    except ValueError:  # a quote that is not closed
        return "", ""
    if words[:2] != ["transkd", "run"] or len(words) < 3:
        return "", ""
    spec = words[words.index("--cluster") + 1 :][:1] if "--cluster" in words else []
    return words[2], "".join(spec)


def _is_read_only(volume: dict[str, Any]) -> bool:
    return any(table(source).get("readOnly") is True for source in volume.values())


def _unknown_claims(pod: _Pod, documents: Sequence[Document]) -> Iterator[Finding]:
    """Volumes of a claim that the file does not have, where it has claims."""
    claims = {
        str(table(claim.get("metadata")).get("name"))
        for claim in (table(document.data) for document in documents)
        if claim.get("kind") == "PersistentVolumeClaim"
    }
    for volume in pod.mounts.values():
        name = table(volume.get("persistentVolumeClaim")).get("claimName")
        if claims and name is not None and str(name) not in claims:
            message = f"{pod.name} mounts the volume claim {name}, and the file makes {', '.join(sorted(claims))}"
            yield Finding("claim-unknown", message, "name that one", pod.line("template", "spec", "volumes"))


def _claims(documents: Sequence[Document]) -> Iterator[Finding]:
    """Volume claims that only one node may mount."""
    for document in documents:
        claim = table(document.data)
        modes = array(table(claim.get("spec")).get("accessModes"))
        if claim.get("kind") == "PersistentVolumeClaim" and "ReadWriteMany" not in modes:
            name = table(claim.get("metadata")).get("name", "")
            message = f"volume claim {name} is {', '.join(map(str, modes)) or 'of no access mode'}"
            remedy = "set accessModes: [ReadWriteMany], because head and workers on several nodes write to the store"
            yield Finding("not-shared", message, remedy, document.line("spec", "accessModes"))
