"""SkyPilot task files: their machine, and what lets it stay or loses the store on its disk."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from cluster.launchers.instances import gpus_of
from cluster.launchers.launcher_file import Document, Launcher, MachineType, array, disk_findings, idle_findings, table
from cluster.lint import Finding
from cluster.machine_types import Machine
from cluster.mistakes import hint
from cluster.spec import LARGEST

KEYS = (
    *("name", "workdir", "num_nodes", "resources", "envs", "secrets", "file_mounts", "volumes", "setup", "run"),
    *("config", "service", "pool", "inputs", "outputs", "event_callback", "managed_secrets", "api_server_access"),
    *("file_mounts_mapping", "volume_mounts", "_metadata"),
)
"""Source: `get_task_schema` of SkyPilot 0.14.1."""
RESOURCES = (
    *("cloud", "region", "zone", "infra", "cpus", "memory", "accelerators", "accelerator_args", "instance_type"),
    *("use_spot", "spot_recovery", "job_recovery", "disk_size", "disk_tier", "network_tier", "ports", "labels"),
    *("image_id", "any_of", "ordered", "autostop", "priority", "volumes"),
)
AUTOSTOP = ("idle_minutes", "down", "wait_for")
"""Of `get_resources_schema`, those that a slip may have meant; there are more."""
GPUS = (
    *("A10", "A10G", "A100", "A100-80GB", "A16", "A30", "A40", "A4000", "A5000", "A6000", "B200", "B300"),
    *("GB200", "GH200", "H100", "H100-80GB", "H200", "K80", "L4", "L40", "L40S", "M60", "P100", "P4"),
    *("RTX3060", "RTX3070", "RTX3080", "RTX3090", "RTX4070", "RTX4080", "RTX4090", "RTX5080", "RTX5090"),
    *("RTX4000-Ada", "RTX5000-Ada", "RTX6000-Ada", "T4", "T4g", "V100", "V100-32GB"),
)
"""GPUs as SkyPilot names them, in any case. There are more, so that only another spelling of one of these is told."""
DISK = "/"
"""The one machine shares every folder with itself."""


def is_task(data: dict[Any, Any]) -> bool:
    """Whether a document is for `sky launch`."""
    return "run" in data and ("resources" in data or "setup" in data)


def skypilot(document: Document) -> Launcher:
    """The machine and the problems of a task. Never raises: what has a wrong type counts as absent."""
    data, line = document.data, document.line("run")
    resources = table(data.get("resources"))
    text = str(data.get("run", ""))
    runs = re.search(r"\b(?:transkd run|run-again\.sh)\s+(\S+)(.*)", text)
    spec = re.search(r"--cluster[= ](\S+)", runs[2]) if runs else None
    found = [*_mistakes(document, data, resources)]
    if runs and spec is None:
        message = "run names no cluster spec: each run would have one CPU and no GPU"
        found.append(Finding("entrypoint-local", message, "add --cluster gpu", line))
    machine, exact = _machine(resources), str(resources.get("cpus")).isdecimal()
    kind = MachineType("machine", machine, 1, 1, line=document.line("resources", "accelerators"), at_least=not exact)
    study = runs[1] if runs and "$" not in runs[1] else ""
    return Launcher([kind], [DISK], found, spec=spec[1] if spec else "", study=study, command_line=line)


def _machine(resources: dict[Any, Any]) -> Machine:
    """The machine that is asked for; of several that may be, what each has at least."""
    choices = [{**resources, **table(each)} for key in ("any_of", "ordered") for each in array(resources.get(key))]
    machines = []
    for asked in choices or [resources]:
        gpus = _gpus(asked.get("accelerators")) or gpus_of(str(asked.get("instance_type"))) or 0
        machines.append(Machine(_first(asked.get("cpus"), LARGEST), gpus))
    return Machine(min(each.cpus for each in machines), min(each.gpus for each in machines))


def _first(value: Any, default: int) -> int:
    number = re.match(r"\d{1,6}", str(value))
    return int(number[0]) if number else default


def _gpus(value: Any) -> int:
    """GPUs of `L4:4`, `{L4: 4}` or `[L4:4, A10G:2]`: the fewest, as SkyPilot chooses."""
    if isinstance(value, dict):
        return min((_first(count, 1) for count in value.values()), default=0)
    kinds = array(value) or ([value] if isinstance(value, str) else [])
    return min((_first(str(kind).rpartition(":")[2], 1) for kind in kinds), default=0)


def _accelerators(value: Any, line: int | None) -> Iterator[Finding]:
    """GPUs that SkyPilot spells in another way: it would find no machine."""
    asked = list(value) if isinstance(value, dict) else array(value) or ([value] if isinstance(value, str) else [])
    known = {_plain(name): name for name in GPUS}
    for kind in map(str, asked):
        name = kind.partition(":")[0].strip()
        right = known.get(_plain(name))
        if right and name.lower() != right.lower():
            message = f"SkyPilot knows no accelerator {name}, and would find no machine"
            yield Finding("wrong-value", message, f"write {right}", line)


def _plain(name: str) -> str:
    """A name without what differs between its spellings."""
    return re.sub(r"nvidia|geforce|tesla|[-_ ]", "", name.lower())


def _mistakes(document: Document, data: dict[Any, Any], resources: dict[Any, Any]) -> Iterator[Finding]:
    for key in data:
        if key not in KEYS:
            message = f"a task has no key {key!r}"
            yield Finding("unknown-key", message, hint(str(key), KEYS), document.line(key))
    stop = resources.get("autostop", False)
    for of, given, known in (((), resources, RESOURCES), (("autostop",), table(stop), AUTOSTOP)):
        for key in map(str, given):
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
            if close and key not in known:
                at = ("resources", *of)
                message = f"{'.'.join(at)} has no key {key!r}"
                yield Finding("unknown-key", message, f"did you mean '{close[0]}'?", document.line(*at, key))
    yield from _accelerators(resources.get("accelerators"), document.line("resources", "accelerators"))
    yield from disk_findings("the machine", resources.get("disk_size"), document.line("resources", "disk_size"))
    minutes = table(stop).get("idle_minutes", stop)
    if isinstance(minutes, int) and not isinstance(minutes, bool) and minutes > 0:
        yield from idle_findings(minutes * 60, "autostop", document.line("resources", "autostop"))
    if stop is False:
        message = "the machine stays when the study has ended"
        remedy = "set resources.autostop: {idle_minutes: 30, down: false}"
        yield Finding("stays-up", message, remedy, document.line("resources", "autostop"))
    if table(stop).get("down") is True and not re.search(r"\b(s3|gs|abfs)://", str(data.get("run", ""))):
        message = "the machine, and the store on its disk with it, is deleted once it has been idle"
        remedy = "set down: false, or keep the store in a bucket: transkd run --store s3://BUCKET/store"
        yield Finding("store-temporary", message, remedy, document.line("resources", "autostop"))
    if resources.get("use_spot") is True:
        message = "the machine may be taken back, and the store on its disk with it"
        yield Finding("head-on-spot", message, "set use_spot: false", document.line("resources", "use_spot"))
    nodes = data.get("num_nodes", 1)
    if nodes != 1:
        message = f"num_nodes is {nodes}, and the study runs on the first machine alone"
        yield Finding("hosts-unused", message, "remove num_nodes, or use ray up", document.line("num_nodes"))
