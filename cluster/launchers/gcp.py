"""Settings of Google Cloud in a `ray up` file that it refuses, or that leave what is paid for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from cluster.launchers.instances import has_gpus
from cluster.launchers.launcher_file import array, disk_findings, table
from cluster.lint import Finding


def node_findings(
    name: str, node: dict[Any, Any], provider: dict[Any, Any], line: Callable[..., int | None]
) -> Iterator[Finding]:
    """What is wrong in the `node_config` of a machine type. `line` gives the line of a key."""
    zone = provider.get("availability_zone")
    for number, disk in enumerate(map(table, array(node.get("disks")))):
        if disk.get("autoDelete") is False:
            message = f"the disk of a {name} that has ended is kept and paid for"
            yield Finding("disks-kept", message, "set autoDelete: true", line("disks", number, "autoDelete"))
        if disk.get("boot") is True:
            size = table(disk.get("initializeParams")).get("diskSizeGb")
            yield from disk_findings(name, size, line("disks", number, "initializeParams", "diskSizeGb"))
        kind = str(table(disk.get("initializeParams")).get("diskType", ""))
        other = re.search(r"zones/([^/]+)/", kind)
        if other and zone and other[1] != zone:
            message = f"the disk of {name} is in {other[1]}, and the machine in {zone}"
            where = line("disks", number, "initializeParams", "diskType")
            yield Finding("zone-differs", message, f"write zones/{zone}/", where)
    if not (has_gpus(str(node.get("machineType")).rpartition("/")[2]) or node.get("guestAccelerators")):
        return
    for number, setting in enumerate(map(table, array(node.get("scheduling")) or [node.get("scheduling")])):
        if str(setting.get("onHostMaintenance", "")).upper() == "MIGRATE":
            message = f"{name} has GPUs and onHostMaintenance MIGRATE, which Google refuses"
            at = ("scheduling", number) if isinstance(node.get("scheduling"), list) else ("scheduling",)
            yield Finding("wrong-value", message, "write TERMINATE", line(*at, "onHostMaintenance"))
