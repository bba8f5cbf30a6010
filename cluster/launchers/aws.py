"""Names of AWS in a `ray up` file: regions, instance types, and the keys of a machine's settings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Any

from cluster.launchers.launcher_file import array, disk_findings, table
from cluster.lint import Finding

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_IMAGE = re.compile(r"ami-([0-9a-f]{8}|[0-9a-f]{17})|resolve:ssm:.+")
_ROOTS = ("/dev/sda1", "/dev/xvda")
"""The disk with the image."""
_MARKETS = ("spot", "capacity-block")
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


def node_findings(name: str, node: dict[Any, Any], line: Callable[..., int | None]) -> Iterator[Finding]:
    """Keys of `node_config` with a slip, names that AWS cannot have, and disks that are kept. `line` gives the line of
    a key."""
    image = node.get("ImageId")
    if isinstance(image, str) and not _IMAGE.fullmatch(image):
        message = f"{name} has the image {image}, and AWS's are ami- and 17 digits from 0 to f"
        yield Finding("wrong-value", message, "copy it again", line("ImageId"))
    market = table(node.get("InstanceMarketOptions")).get("MarketType")
    if market is not None and market not in _MARKETS:
        message = f"{name} has the MarketType {market}, which AWS refuses"
        yield Finding("wrong-value", message, "write spot", line("InstanceMarketOptions", "MarketType"))
    for number, disk in enumerate(array(node.get("BlockDeviceMappings"))):
        size = table(table(disk).get("Ebs")).get("VolumeSize")
        if table(disk).get("DeviceName") in _ROOTS:
            yield from disk_findings(name, size, line("BlockDeviceMappings", number, "Ebs", "VolumeSize"))
        if table(table(disk).get("Ebs")).get("DeleteOnTermination") is False:
            message = f"the disk of a {name} that has ended is kept and paid for"
            where = line("BlockDeviceMappings", number, "Ebs", "DeleteOnTermination")
            yield Finding("disks-kept", message, "set DeleteOnTermination: true", where)
    kind = node.get("InstanceType")
    if isinstance(kind, str) and not _TYPE.fullmatch(kind):
        message = f"{name} asks for an instance of type {kind}, which AWS cannot have"
        yield Finding("instance-unknown", message, "write one such as g5.2xlarge", line("InstanceType"))
    for key in map(str, node):
        close = difflib.get_close_matches(key, NODE_KEYS, n=1, cutoff=0.8)
        if close and key not in NODE_KEYS:
            message = f"{name}.node_config has no key {key!r}"
            yield Finding("unknown-key", message, f"did you mean '{close[0]}'?", line(key))
