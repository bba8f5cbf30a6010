"""Machines that a cloud may take back (spot, preemptible): which they are, and what goes wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cluster.launchers.launcher_file import MachineType, array, table
from cluster.lint import Finding

SPOT_LABELS = {
    "cloud.google.com/gke-preemptible": "true",
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
"""Labels of such nodes in GKE, EKS, Karpenter and AKS."""


def is_spot_node(node: dict[Any, Any]) -> bool:
    """Whether a `node_config` of AWS, GCP or Azure asks for such a machine."""
    aws = table(node.get("InstanceMarketOptions")).get("MarketType") == "spot"
    gcp = [table(item) for item in [node.get("scheduling"), *array(node.get("scheduling"))]]
    azure = table(node.get("azure_arm_parameters")).get("priority") == "Spot"
    return (
        aws or azure or any(item.get("preemptible") is True or item.get("provisioningModel") == "SPOT" for item in gcp)
    )


def is_spot_selector(selector: dict[Any, Any]) -> bool:
    """Whether a pod's `nodeSelector` asks for such nodes."""
    return any(selector.get(label) == value for label, value in SPOT_LABELS.items())


def spot_findings(types: Sequence[MachineType]) -> Iterator[Finding]:
    """A head that may be taken back, and workers that wait for capacity or cost more than they need."""
    for kind in types:
        if kind.head and kind.spot:
            message = "the head may be taken back, and the study and its driver end with it"
            yield Finding("head-on-spot", message, "run the head on demand", kind.line)
        if kind.head or not kind.spot or not kind.most:
            continue
        same = [other for other in types if not other.head and not other.spot and _holds(other, kind)]
        if not same:
            message = f"{kind.name} runs on spot machines only: while the cloud has none, all runs wait"
            remedy = "add a type of that size on demand, with a lower priority"
            yield Finding("spot-only", message, remedy, kind.line)
        elif kind.priority <= max(other.priority for other in same):
            message = f"{kind.name} is on spot, and {same[0].name} on demand is started as soon or sooner"
            yield Finding("spot-not-first", message, f"set a higher priority for {kind.name}", kind.line)


def _holds(other: MachineType, kind: MachineType) -> bool:
    return other.most > 0 and other.machine.cpus >= kind.machine.cpus and other.machine.gpus >= kind.machine.gpus
