"""KubeRay's RayJobs and RayClusters: their machine types, shared folders and problems."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from cluster.launchers.launcher_file import (
    Document,
    Launcher,
    array,
    idle_findings,
    other_versions,
    table,
    texts,
    wrong_counts,
)
from cluster.launchers.pod import Pod
from cluster.launchers.quantities import amount
from cluster.launchers.rayjob import command, job_findings, metadata_findings
from cluster.launchers.schemas import check_kuberay
from cluster.launchers.spot import spot_findings
from cluster.lint import Finding

_SHARED = ("persistentVolumeClaim", "nfs", "cephfs", "csi", "azureFile", "glusterfs")
"""Kinds of volumes that several nodes may mount."""
_WORDS = {
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "operator": ("Exists", "Equal"),
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "protocol": ("TCP", "UDP", "SCTP"),
}
"""Key -> the values that Kubernetes takes, which are not in KubeRay's schema; `operator` is that of a toleration."""
LEAST_DISK = 2**30
"""Less of a volume, in bytes, was meant in another unit."""


def kuberay(document: Document, others: Sequence[Document]) -> Launcher:
    """The machines of a RayJob or RayCluster; `others` are the file's other documents, its volume claims among them."""
    job = document.data.get("kind") == "RayJob"
    keys: tuple[Any, ...] = ("spec", "rayClusterSpec") if job else ("spec",)
    cluster = table(document.data.get("spec"))
    if job:
        cluster = table(cluster.get("rayClusterSpec"))
    workers = array(cluster.get("workerGroupSpecs"))
    places = [("headGroupSpec",), *(("workerGroupSpecs", number) for number in range(len(workers)))]
    groups = [cluster.get("headGroupSpec"), *workers]
    pods = [Pod(document, table(group), (*keys, *at)) for at, group in zip(places, groups, strict=True)]
    types = [pod.kind for pod in pods]
    found = [*check_kuberay(document, job=job), *other_versions(document), *_claims(others)]
    found += [*metadata_findings(document), *_whole(document, cluster, keys, pods), *_images(pods), *_words(document)]
    found += job_findings(document) if job else []
    for pod in pods:
        found += [*pod.findings(), *_unknown_claims(pod, others)]
    found += wrong_counts(types, {pod.name: pod.line("minReplicas") for pod in pods})
    found += spot_findings(types)
    shared = [{path for path, volume in pod.mounts.items() if any(kind in volume for kind in _SHARED)} for pod in pods]
    study, spec = command(document) if job else ("", "")
    return Launcher(
        types,
        sorted(set.intersection(*shared)),
        found,
        tuple(sorted(set.union(*(pod.read_only for pod in pods)))),
        spec,
        study,
        mount_line=pods[-1].line("template", "spec", "containers", 0, "volumeMounts"),
        command_line=document.line("spec", "entrypoint"),
    )


def _whole(
    document: Document, cluster: dict[str, Any], keys: tuple[Any, ...], pods: Sequence[Pod]
) -> Iterator[Finding]:
    if not cluster.get("enableInTreeAutoscaling") and not all(pod.fixed for pod in pods):
        message = "enableInTreeAutoscaling is off: the cluster keeps its initial size"
        yield Finding("no-autoscaler", message, "set enableInTreeAutoscaling: true", document.line(*keys))
    if table(cluster.get("authOptions")).get("mode") != "token":
        message = "Ray starts without a token: whoever reaches one of its ports runs code in the pods"
        line = document.line(*keys, "authOptions")
        yield Finding("no-token", message, "set authOptions: {mode: token}", line)
    idle = table(cluster.get("autoscalerOptions")).get("idleTimeoutSeconds")
    line = document.line(*keys, "autoscalerOptions", "idleTimeoutSeconds")
    yield from idle_findings(idle, "autoscalerOptions.idleTimeoutSeconds", line)
    second = table(cluster.get("autoscalerOptions")).get("version") == "v2"
    for pod in pods:
        if second and pod.spec.get("restartPolicy", "Never") != "Never":
            message = f"restartPolicy of {pod.name} is {pod.spec['restartPolicy']}: autoscaler v2 replaces pods itself"
            line = pod.line("template", "spec", "restartPolicy")
            yield Finding("refused-by-kuberay", message, "remove restartPolicy", line)


def _words(document: Document) -> Iterator[Finding]:
    """Values that only Kubernetes itself would refuse, once pods are made."""
    for keys, text in texts(document.data):
        name = str(keys[-1])
        known = _WORDS.get(name, ()) if name != "operator" or "tolerations" in keys else ()
        if known and text not in known:
            message = f"{name} is {text}, which Kubernetes refuses"
            yield Finding("wrong-value", message, f"write one of {', '.join(known)}", document.line(*keys))
        if name == "image" and not _is_image(text):
            message = f"{text} is no name of an image"
            remedy = "write REGISTRY/NAME:TAG in small letters, without https:// and spaces"
            yield Finding("wrong-value", message, remedy, document.line(*keys))


def _is_image(text: str) -> bool:
    name = re.sub(r"@.*|:[\w.-]+$", "", text.rpartition("/")[2])
    return not re.search(r"\s|://", text) and name == name.lower()


def _images(pods: Sequence[Pod]) -> Iterator[Finding]:
    """Pods of other code than the head's, and images that may be another one tomorrow."""
    head = pods[0].container.get("image")
    for pod in pods:
        image = pod.container.get("image")
        line = pod.line("template", "spec", "containers", 0, "image")
        if image != head:
            message = f"{pod.name} runs {image}, the head {head}: what one sends, the other may not know"
            yield Finding("images-differ", message, "write one image for all", line)
        elif isinstance(image, str) and not _is_pinned(image):
            message = f"{pod.name} runs {image}, which may be another one when the next machine starts"
            yield Finding("image-unpinned", message, "write its version, as in transkd:0.1.0", line)


def _is_pinned(image: str) -> bool:
    _, colon, tag = image.rpartition("/")[2].partition(":")
    return "@" in image or bool(colon and tag != "latest")


def _unknown_claims(pod: Pod, documents: Sequence[Document]) -> Iterator[Finding]:
    """Volumes of a claim that the file does not have, or has in another namespace, where it has claims."""
    claims = {
        str(table(claim.get("metadata")).get("name")): table(claim.get("metadata")).get("namespace", "default")
        for claim in (table(document.data) for document in documents)
        if claim.get("kind") == "PersistentVolumeClaim"
    }
    for volume in pod.mounts.values():
        name = table(volume.get("persistentVolumeClaim")).get("claimName")
        if claims and name is not None and str(name) not in claims:
            message = f"{pod.name} mounts the volume claim {name}, and the file makes {', '.join(sorted(claims))}"
            yield Finding("claim-unknown", message, "name that one", pod.line("template", "spec", "volumes"))
        here = table(pod.document.data.get("metadata")).get("namespace", "default")
        if str(name) in claims and claims[str(name)] != here:
            message = f"{pod.name} is in the namespace {here}, and its volume claim {name} in {claims[str(name)]}"
            yield Finding("claim-unknown", message, "write one namespace", pod.line("template", "spec", "volumes"))


def _claims(documents: Sequence[Document]) -> Iterator[Finding]:
    """Volume claims that only one node may mount, or of no usable size."""
    for document in documents:
        claim = table(document.data)
        storage = table(table(table(claim.get("spec")).get("resources")).get("requests")).get("storage")
        line, size = document.line("spec", "resources", "requests", "storage"), amount(storage)
        if claim.get("kind") == "PersistentVolumeClaim" and storage is not None and size is None:
            message = f"storage {storage} is no quantity of Kubernetes"
            yield Finding("wrong-quantity", message, "write one such as 500Gi", line)
        elif claim.get("kind") == "PersistentVolumeClaim" and size is not None and size < LEAST_DISK:
            yield Finding("memory-small", f"storage {storage} is {size:g} bytes", "write the unit, as in 500Gi", line)
        modes = array(table(claim.get("spec")).get("accessModes"))
        if claim.get("kind") == "PersistentVolumeClaim" and "ReadWriteMany" not in modes:
            name = table(claim.get("metadata")).get("name", "")
            message = f"volume claim {name} is {', '.join(map(str, modes)) or 'of no access mode'}"
            remedy = "set accessModes: [ReadWriteMany], because head and workers on several nodes write to the store"
            yield Finding("not-shared", message, remedy, document.line("spec", "accessModes"))
