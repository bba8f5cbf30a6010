"""Names of AWS in a `ray up` file: regions, instance types, and the keys of a machine's settings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Any

from cluster.lint import Finding

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_TYPE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\.(nano|micro|small|medium|large|\d*xlarge|metal(-\d+xl)?)")
NODE_KEYS = (
    *("BlockDeviceMappings", "CapacityReservationSpecification", "CpuOptions", "CreditSpecification", "DryRun"),
    *("DisableApiStop", "DisableApiTermination", "EbsOptimized", "ElasticGpuSpecification", "EnclaveOptions"),
    *("HibernationOptions", "IamInstanceProfile", "ImageId", "InstanceInitiatedShutdownBehavior", "InstanceType"),
    *("InstanceMarketOptions", "Ipv6AddressCount", "Ipv6Addresses", "KernelId", "KeyName", "LaunchTemplate"),
    *("LicenseSpecifications", "MaintenanceOptions", "MaxCount", "MetadataOptions", "MinCount", "Monitoring"),
    *("NetworkInterfaces", "Placement", "PrivateDnsNameOptions", "PrivateIpAddress", "RamdiskId", "SecurityGroupIds"),
    *("SecurityGroups", "SubnetId", "SubnetIds", "TagSpecifications", "UserData"),
)
"""The parameters of EC2's RunInstances, and Ray's `SubnetIds`."""


def region_findings(region: Any, line: int | None) -> Iterator[Finding]:
    """A region that AWS cannot have."""
    if isinstance(region, str) and not _REGION.fullmatch(region):
        yield Finding("region-unknown", f"{region} is no region of AWS", "write one such as us-west-2", line)


def node_findings(name: str, node: dict[Any, Any], line: Callable[[str], int | None]) -> Iterator[Finding]:
    """Keys of `node_config` with a slip, and a type that no machine has. `line` gives the line of a key."""
    kind = node.get("InstanceType")
    if isinstance(kind, str) and not _TYPE.fullmatch(kind):
        message = f"{name} asks for an instance of type {kind}, which AWS cannot have"
        yield Finding("instance-unknown", message, "write one such as g5.2xlarge", line("InstanceType"))
    for key in map(str, node):
        close = difflib.get_close_matches(key, NODE_KEYS, n=1, cutoff=0.8)
        if close and key not in NODE_KEYS:
            message = f"{name}.node_config has no key {key!r}"
            yield Finding("unknown-key", message, f"did you mean '{close[0]}'?", line(key))
