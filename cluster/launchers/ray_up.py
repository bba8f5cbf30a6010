"""Files for `ray up`: their machine types, shared folders and problems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from cluster.launchers import gcp
from cluster.launchers.aws import node_findings, region_findings
from cluster.launchers.instances import instance_findings, processor_findings
from cluster.launchers.launcher_file import (
    SHM_GIB,
    Document,
    Launcher,
    MachineType,
    array,
    idle_findings,
    other_versions,
    table,
    texts,
    wrong_counts,
)
from cluster.launchers.quantities import docker_bytes
from cluster.launchers.ray_up_commands import COPIES, OWN, command_findings, copied, line_of, mounts
from cluster.launchers.roles import buckets_by_role, has_role, head_may_pass
from cluster.launchers.schemas import check_ray_up
from cluster.launchers.spot import is_spot_node, spot_findings
from cluster.lint import Finding
from cluster.machine_types import Machine

NODES = "available_node_types"
_ZONES = {"aws": "{}", "gcp": "{}-"}
"""How the zones of a region begin."""
_INSTANCE = ("InstanceType", "machineType", "azure_arm_parameters")
"""The key of an instance's type at AWS, GCP and Azure."""
_KEEP_STOPPED = ("aws", "azure", "aliyun")
"""Providers that stop idle machines where they are not told to end them."""


def ray_up(document: Document) -> Launcher:
    """The machines of a `ray up` file. Never raises: what has a wrong type is a finding and counts as absent."""
    config = document.data
    found = [*check_ray_up(document), *_whole(document), *other_versions(document)]
    head, limit = config.get("head_node_type"), _count(config.get("max_workers"), 2)
    provider = table(config.get("provider")).get("type")
    types: list[MachineType] = []
    for name, kind in table(config.get(NODES)).items():
        kind, lines = table(kind), document.line(NODES, name)
        resources = table(kind.get("resources"))
        for key in map(str, resources):
            right = key.upper().removesuffix("S")
            if right in ("CPU", "GPU") and key != right:
                message = f"{name}.resources has no key '{key}': Ray would take it for a resource of your own"
                line = document.line(NODES, name, "resources", key)
                found.append(Finding("unknown-key", message, f"did you mean '{right}'?", line))
        if "CPU" not in resources:
            message = f"{name} states no resources: whether a run fits would be known only once the machine runs"
            found.append(Finding("resources-unstated", message, f"set {NODES}.{name}.resources: {{CPU: N}}", lines))
        least, most = _count(kind.get("min_workers"), 0), _count(kind.get("max_workers"), limit)
        if name == head:
            least = most = 1
        elif most > limit:
            message = f"max_workers of {name} is {most} but that of the cluster is {limit}: the smaller one applies"
            line = document.line(NODES, name, "max_workers")
            found.append(Finding("limit-exceeded", message, f"set max_workers: {most} at the top", line))
        machine = Machine(_count(resources.get("CPU"), 0), _count(resources.get("GPU"), 0))
        node = table(kind.get("node_config"))
        spot, priority = is_spot_node(node), _count(kind.get("priority"), 0)
        most = most if name == head else min(most, limit)
        role = has_role(provider, node, head=name == head)
        types.append(MachineType(str(name), machine, least, most, name == head, lines, spot, priority, has_role=role))
        if provider == "aws":
            found += node_findings(str(name), node, partial(document.line, NODES, name, "node_config"))
        if provider == "gcp":
            given = table(config.get("provider"))
            found += gcp.node_findings(str(name), node, given, partial(document.line, NODES, name, "node_config"))
        found += idle_findings(
            kind.get("idle_timeout_s"), f"{name}.idle_timeout_s", document.line(NODES, name, "idle_timeout_s")
        )
    shared, copies = (sorted(of(config, "head") & of(config, "worker")) for of in (mounts, copied))
    found += _instances(document, types)
    minima = {kind.name: document.line(NODES, kind.name, "min_workers") for kind in types}
    found += [*wrong_counts(types, minima), *spot_findings(types)]
    line = line_of(document, rf"\bmount(point)? -|{COPIES}", "setup_commands")
    by_role = buckets_by_role(config)
    return Launcher(types, shared, found, limit=limit, mount_line=line, copied=tuple(copies), buckets_by_role=by_role)


def _instances(document: Document, types: list[MachineType]) -> Iterator[Finding]:
    """Instance types that cannot be what the file asks of them, or that have other processors than their image."""
    nodes, kinds = _nodes(document.data), {}
    for kind in types:
        node = nodes[kind.name]
        asked = next((key for key in _INSTANCE if node.get(key)), "")
        instance, line = node.get(asked), document.line(NODES, kind.name, "node_config", asked)
        if isinstance(instance, dict):
            instance = instance.get("vmSize")
        if isinstance(instance, str):
            instance = instance.rpartition("/")[2]
            if added := array(node.get("guestAccelerators")):
                gpus = sum(_count(table(each).get("acceleratorCount"), 1) for each in added)
                message = f"Ray is told of {kind.machine.gpus:g} GPUs of {kind.name}, and guestAccelerators has {gpus}"
                if kind.machine.gpus > gpus:
                    yield Finding("gpu-missing", message, f"set GPU: {gpus}", line)
                elif kind.machine.gpus < gpus:
                    yield Finding("gpus-unused", message, f"set GPU: {gpus}", line)
            else:
                yield from instance_findings(kind.name, instance, kind.machine, line, head=kind.head)
            kinds[kind.name] = (instance, _image(node), line)
    yield from processor_findings(kinds)


def _nodes(config: dict[str, Any]) -> dict[str, dict[Any, Any]]:
    """Machine type -> its `node_config`."""
    return {str(name): table(table(kind).get("node_config")) for name, kind in table(config.get(NODES)).items()}


def _image(node: dict[Any, Any]) -> Any:
    disks = (table(table(disk).get("initializeParams")) for disk in array(node.get("disks")))
    return node.get("ImageId") or next((disk["sourceImage"] for disk in disks if disk.get("sourceImage")), None)


def _hosts(document: Document, provider: dict[Any, Any], most: Any) -> Iterator[Finding]:
    """Hosts of one's own that are listed twice, or that no run would ever get."""
    hosts = [provider.get("head_ip"), *array(provider.get("worker_ips"))]
    line = document.line("provider", "worker_ips")
    for host in sorted({str(host) for host in hosts if hosts.count(host) > 1}):
        message = f"{host} is listed twice: Ray would be started on it twice, and count its CPUs and GPUs twice"
        yield Finding("host-twice", message, "name each host once", line)
    for host in map(str, hosts):
        if re.fullmatch(OWN, host) and len(hosts) > 1:
            message = f"{host} is another machine on each host"
            yield Finding("wrong-value", message, "write a name or address that all hosts know", line)
        elif re.search(r"[@/\s]", host):
            message = f"{host} is no name or address of a host"
            yield Finding("wrong-value", message, "write it alone; the user is auth.ssh_user", line)
    if len(hosts) - 1 > _count(most, len(hosts) - 1):
        message = f"max_workers is {most} and there are {len(hosts) - 1} worker_ips: the others are never used"
        yield Finding("hosts-unused", message, f"set max_workers: {len(hosts) - 1}", document.line("max_workers"))


def _homes(document: Document) -> Iterator[Finding]:
    """Folders of another user than the one who logs in: `ray up` cannot write there."""
    config = document.data
    user = table(config.get("auth")).get("ssh_user")
    if not isinstance(user, str) or user == "root" or config.get("docker"):
        return
    places = [(("file_mounts", name), str(name)) for name in table(config.get("file_mounts"))]
    for keys, text in texts(config):
        if str(keys[0]).endswith("commands"):
            text = re.sub(r"(^|\s)#.*", "", text)
            made = re.findall(r"""(?<!sudo )\bmkdir\b[^;&|]*\s["']?(/[^\s"';&|]+)""", text)
            places += [(keys, place) for place in (*made, *re.findall(COPIES, text))]
    for keys, place in places:
        other = re.match(r"/(?:home/([\w.-]+)|(root))(?:/|$)", place)
        if other and (name := other[1] or other[2]) != user:
            message = f"{place} is in the home of {name}, and the user who logs in is {user}"
            remedy = f"write /home/{user}, or set auth.ssh_user: {name}"
            yield Finding("home-differs", message, remedy, document.line(*keys))
            return


def _zones(document: Document, provider: dict[Any, Any]) -> Iterator[Finding]:
    """Zones of another region."""
    region, zones = provider.get("region"), provider.get("availability_zone")
    begins = _ZONES.get(str(provider.get("type")))
    if begins and isinstance(region, str) and isinstance(zones, str):
        for zone in (zone.strip() for zone in zones.split(",")):
            if not zone.startswith(begins.format(region)):
                message = f"the zone {zone} is not of the region {region}"
                line = document.line("provider", "availability_zone")
                yield Finding("zone-differs", message, "write one of that region", line)


def _count(value: Any, default: int) -> int:
    """A whole number, also where it is written as 1.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _whole(document: Document) -> Iterator[Finding]:
    config = document.data
    head, provider = config.get("head_node_type"), table(config.get("provider"))
    if provider.get("type") == "local":
        yield from _hosts(document, provider, config.get("max_workers"))
    elif str(head) not in map(str, table(config.get(NODES))):
        message = f"head_node_type {head} is not in {NODES}"
        yield Finding("head-unknown", message, "name one of them", document.line("head_node_type"))
    if provider.get("type") in ("aws", "gcp") and not provider.get("region"):
        message = "provider has no region: Ray would use its default"
        yield Finding("region-missing", message, "set provider.region", document.line("provider"))
    if provider.get("type") == "gcp" and not provider.get("project_id"):
        message = "provider has no project_id, and Ray starts no machine without one"
        yield Finding("missing-key", message, "set provider.project_id", document.line("provider"))
    yield from _zones(document, provider)
    yield from _homes(document)
    idle = config.get("idle_timeout_minutes")
    if isinstance(idle, int | float):
        yield from idle_findings(idle * 60, "idle_timeout_minutes", document.line("idle_timeout_minutes"))
    if provider.get("cache_stopped_nodes", provider.get("type") in _KEEP_STOPPED) is True:
        message = "a machine that the autoscaler stops is kept, and its disk is paid for until `ray down`"
        line = document.line("provider", "cache_stopped_nodes")
        yield Finding("disks-kept", message, "set provider.cache_stopped_nodes: false", line)
    if provider.get("type") == "aws":
        yield from region_findings(provider.get("region"), document.line("provider", "region"))
        yield from head_may_pass(str(head), _nodes(config), document.line(NODES, head))
    yield from command_findings(document)
    for keys, text in texts(config):
        small = re.search(r"--shm-size[= ](\S+)", text)
        size = docker_bytes(small[1].strip("'\"")) if small else None
        if small and (size is None or size < SHM_GIB * 2**30):
            message = f"{small[0]} is too little for Ray's object store and PyTorch"
            yield Finding("shm-small", message, "write --shm-size=8g", document.line(*keys))
