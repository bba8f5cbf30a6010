"""Files for `ray up`: their machine types, shared folders and problems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from cluster.launchers import gcp
from cluster.launchers.aws import node_findings, region_findings
from cluster.launchers.launcher_file import (
    SHM_GIB,
    Document,
    Launcher,
    MachineType,
    array,
    idle_findings,
    instance_findings,
    other_versions,
    table,
    texts,
    wrong_counts,
)
from cluster.launchers.quantities import docker_bytes
from cluster.launchers.roles import buckets_by_role, has_role, head_may_pass
from cluster.launchers.schemas import check_ray_up
from cluster.launchers.spot import is_spot_node, spot_findings
from cluster.lint import Finding
from cluster.machine_types import Machine

NODES = "available_node_types"
_HEADS, _JOINS = r"\bray start\b.*--head\b", r"\bray start\b.*--address\b"
"""The commands that start Ray on the head and on a worker."""
_OWN = r"localhost|127\.\d+\.\d+\.\d+|::1|0\.0\.0\.0"
"""Names by which a machine means itself."""
_ZONES = {"aws": "{}", "gcp": "{}-"}
"""How the zones of a region begin."""
_COPIES = r"""\b(?:s3|gs)://[^\s;&|]+[ \t]+(?:--\S+[ \t]+)*["']?(/[^\s;&|"']+)"""
"""What a command has that copies from a bucket, and the folder to which."""
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
        types.append(MachineType(str(name), machine, least, most, name == head, lines, spot, priority, role))
        asked = next((key for key in _INSTANCE if node.get(key)), "")
        instance = node.get(asked)
        if isinstance(instance, dict):
            instance = instance.get("vmSize")
        if isinstance(instance, str) and not node.get("guestAccelerators"):
            line = document.line(NODES, name, "node_config", asked)
            found += instance_findings(str(name), instance, machine, line, head=name == head)
        if provider == "aws":
            found += node_findings(str(name), node, partial(document.line, NODES, name, "node_config"))
        if provider == "gcp":
            given = table(config.get("provider"))
            found += gcp.node_findings(str(name), node, given, partial(document.line, NODES, name, "node_config"))
        found += idle_findings(
            kind.get("idle_timeout_s"), f"{name}.idle_timeout_s", document.line(NODES, name, "idle_timeout_s")
        )
    mounts = sorted(_mounts(config, "head") & _mounts(config, "worker"))
    copied = sorted(_copied(config, "head") & _copied(config, "worker"))
    minima = {kind.name: document.line(NODES, kind.name, "min_workers") for kind in types}
    found += [*wrong_counts(types, minima), *spot_findings(types)]
    line = _line_of(document, rf"\bmount(point)? -|{_COPIES}", "setup_commands")
    by_role = buckets_by_role(config)
    return Launcher(types, mounts, found, limit=limit, mount_line=line, copied=tuple(copied), buckets_by_role=by_role)


def _commands_of(config: dict[str, Any], role: str) -> str:
    """The commands that the machines of a role run: those without a prefix are run on all."""
    other = {"head": "worker_", "worker": "head_"}[role]
    own = [text for keys, text in texts(config) if re.fullmatch(f"(?!{other}).*_commands", str(keys[0]))]
    return "\n".join(re.sub(r"(^|\s)#.*", "", text) for text in own)


def _copied(config: dict[str, Any], role: str) -> set[str]:
    """The folders that the machines of a role copy from a bucket: `aws s3 sync s3://BUCKET/data /data` and the like."""
    return set(re.findall(_COPIES, _commands_of(config, role)))


def _mounts(config: dict[str, Any], role: str) -> set[str]:
    """The folders that the machines of a role mount."""
    commands = _commands_of(config, role)
    mounted = re.findall(r"\bmount -t (?:nfs|efs|lustre|ceph)\S*\s.*?:/\S*\s+(/\S+)", commands)
    demanded = re.findall(r"\bmountpoint -q (/[^\s;&|]++)(?!\s*\|\|)", commands)  # or `ray up` ends there
    return {*mounted, *demanded}


def _line_of(document: Document, pattern: str, key: str) -> int | None:
    """The line of the first text that has a pattern, or else of a key."""
    found = (document.line(*keys) for keys, text in texts(document.data) if re.search(pattern, text))
    return next(found, document.line(key))


def _commands(document: Document) -> Iterator[Finding]:
    """What the commands that start Ray lack."""
    config = document.data
    started = array(config.get("head_start_ray_commands"))
    head_line = _line_of(document, _HEADS, "head_start_ray_commands")
    starts = [(keys, text) for keys, text in texts(config) if "ray start" in text]
    open_ones = [document.line(*keys) for keys, text in starts if "RAY_AUTH_MODE=token" not in text]
    asked = "RAY_AUTH_MODE=token" in str(config.get("docker", "")) or (starts and not open_ones)
    if not (asked and "auth_token" in str(config.get("file_mounts", ""))):
        message = "Ray starts without a token: whoever reaches one of its ports runs code on the machines"
        remedy = "write RAY_AUTH_MODE=token before `ray start` on head and workers, and mount ~/.ray/auth_token"
        yield Finding("no-token", message, remedy, next(iter(open_ones), head_line))
    if started and not any(
        re.search(r"--autoscaling-config[= ]\S*ray_bootstrap_config.yaml", str(one)) for one in started
    ):
        message = "the head starts without the --autoscaling-config that Ray wrote: no machine is added"
        remedy = "add --autoscaling-config=~/ray_bootstrap_config.yaml"
        yield Finding("no-autoscaler", message, remedy, head_line)
    if any("--head" in text and not re.search(r"--dashboard-host[= ]0\.0\.0\.0", text) for _, text in starts):
        message = "the dashboard listens on the head alone, and Ray Train ends the workers of stopped runs through it"
        remedy = "add --dashboard-host=0.0.0.0 to `ray start --head`"
        yield Finding("dashboard-hidden", message, remedy, head_line)
    yield from _other_port(document)
    yield from _never_joined(document)


def _never_joined(document: Document) -> Iterator[Finding]:
    """Commands after which the machines are there, and are no cluster."""
    for role, sign in (("head", "--head"), ("worker", "--address")):
        starts, key = _starts(document, role), f"{role}_start_ray_commands"
        line = _line_of(document, r"\bray start\b", key) if role == "head" else document.line(key)
        if document.data.get(key) and not re.search(rf"\bray start\b.*{sign}\b", starts, re.DOTALL):
            message = f"{key} have no `ray start {sign}`: the {role} would not be part of the cluster"
            yield Finding("not-joined", message, f"add ray start {sign}", line)
    if own := re.search(rf"--address[= ]['\"]?({_OWN}):", _starts(document, "worker")):
        message = f"each worker looks for the head at {own[1]}, which is itself"
        where = _line_of(document, _JOINS, "worker_start_ray_commands")
        yield Finding("not-joined", message, "write --address=$RAY_HEAD_IP:6379", where)


def _other_port(document: Document) -> Iterator[Finding]:
    """Workers that look for the head at another port than its own."""
    head = re.findall(r"--port[= ](\d+)", _starts(document, "head")) or ["6379"]
    worker = re.findall(r"--address[= ]\S*:(\d+)", _starts(document, "worker"))
    if worker and not set(worker) & set(head):
        message = f"workers join the head at port {worker[0]}, and it listens at {head[0]}"
        yield Finding(
            "port-differs", message, "write one port", _line_of(document, _JOINS, "worker_start_ray_commands")
        )


def _starts(document: Document, role: str) -> str:
    return " ".join(text for _, text in texts(document.data.get(f"{role}_start_ray_commands")))


def _hosts(document: Document, provider: dict[Any, Any], most: Any) -> Iterator[Finding]:
    """Hosts of one's own that are listed twice, or that no run would ever get."""
    hosts = [provider.get("head_ip"), *array(provider.get("worker_ips"))]
    line = document.line("provider", "worker_ips")
    for host in sorted({str(host) for host in hosts if hosts.count(host) > 1}):
        message = f"{host} is listed twice: Ray would be started on it twice, and count its CPUs and GPUs twice"
        yield Finding("host-twice", message, "name each host once", line)
    for host in map(str, hosts):
        if re.fullmatch(_OWN, host) and len(hosts) > 1:
            message = f"{host} is another machine on each host"
            yield Finding("wrong-value", message, "write a name or address that all hosts know", line)
        elif re.search(r"[@/\s]", host):
            message = f"{host} is no name or address of a host"
            yield Finding("wrong-value", message, "write it alone; the user is auth.ssh_user", line)
    if len(hosts) - 1 > _count(most, len(hosts) - 1):
        message = f"max_workers is {most} and there are {len(hosts) - 1} worker_ips: the others are never used"
        yield Finding("hosts-unused", message, f"set max_workers: {len(hosts) - 1}", document.line("max_workers"))


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
    idle = config.get("idle_timeout_minutes")
    if isinstance(idle, int | float):
        yield from idle_findings(idle * 60, "idle_timeout_minutes", document.line("idle_timeout_minutes"))
    if provider.get("cache_stopped_nodes", provider.get("type") in _KEEP_STOPPED) is True:
        message = "a machine that the autoscaler stops is kept, and its disk is paid for until `ray down`"
        line = document.line("provider", "cache_stopped_nodes")
        yield Finding("disks-kept", message, "set provider.cache_stopped_nodes: false", line)
    if provider.get("type") == "aws":
        yield from region_findings(provider.get("region"), document.line("provider", "region"))
        nodes = {str(name): table(table(kind).get("node_config")) for name, kind in table(config.get(NODES)).items()}
        yield from head_may_pass(str(head), nodes, document.line(NODES, head))
    yield from _commands(document)
    for keys, text in texts(config):
        small = re.search(r"--shm-size[= ](\S+)", text)
        size = docker_bytes(small[1].strip("'\"")) if small else None
        if small and (size is None or size < SHM_GIB * 2**30):
            message = f"{small[0]} is too little for Ray's object store and PyTorch"
            yield Finding("shm-small", message, "write --shm-size=8g", document.line(*keys))
