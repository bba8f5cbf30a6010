"""Scripts for `sbatch`: the nodes they ask for, and what lets a job hang or ends a study for good."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cluster.launchers.launcher_file import Launcher, MachineType
from cluster.lint import Finding
from cluster.machine_types import Machine
from cluster.spec import LARGEST, SpecError
from trainer.config import UserError, read_text

GRACE_S = 60
"""The driver has so long to stop the runs and to write the report."""
EVERYWHERE = "/"
"""Which folders the nodes share is the site's affair, and not in the script."""
_SHORT = {"N": "nodes", "c": "cpus-per-task", "n": "ntasks", "t": "time", "G": "gpus"}
OPTIONS = (
    *("account", "array", "begin", "chdir", "comment", "constraint", "cpus-per-gpu", "cpus-per-task", "dependency"),
    *("error", "exclude", "exclusive", "export", "gpus", "gpus-per-node", "gpus-per-task", "gres", "hint", "hold"),
    *("job-name", "licenses", "mail-type", "mail-user", "mem", "mem-per-cpu", "mem-per-gpu", "nice", "no-requeue"),
    *("nodelist", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "partition", "priority", "qos"),
    *("requeue", "reservation", "signal", "switches", "time", "time-min", "tmp", "wait-all-nodes", "wckey"),
)
"""Options of sbatch that such a script may have."""
_FORMATS = {
    "nodes": (r"[1-9]\d*k?(-\d+k?)?([:,].*)?", "a number, as in --nodes=2"),
    "ntasks": (r"[1-9]\d*k?", "a number, as in --ntasks=2"),
    "ntasks-per-node": (r"[1-9]\d*", "a number, as in --ntasks-per-node=1"),
    "cpus-per-task": (r"[1-9]\d*", "a number, as in --cpus-per-task=8"),
    "time": (r"(\d+-)?\d+(:\d{1,2}){0,2}|(?i:infinite|unlimited)", "hours, as in --time=24:00:00"),
    "array": (r"\d[\d,:-]*(%\d+)?", "indices, as in --array=0-3"),
}
"""Option -> what Slurm reads in it, and how it is written."""
_MINUTES = r"\d{1,2}(:\d{1,2})?"
"""A time limit below one and a half hours, which were meant as hours: Slurm reads `24` and `24:00` as minutes."""
_MEGABYTES = {"K": 1 / 1024, "": 1.0, "M": 1.0, "G": 1024.0, "T": 1024.0**2}
LEAST_MEGABYTES = 1024
"""Less memory was meant in another unit."""


class _Option(NamedTuple):
    value: str
    line: int


def is_script(text: str) -> bool:
    """Whether a text is for `sbatch`."""
    return bool(re.search(r"^#SBATCH\s", text, re.MULTILINE))


def slurm(path: Path) -> Launcher:
    """The nodes and the problems of a script. Raises SpecError where it cannot be read."""
    try:
        text = read_text(path)
    except UserError as error:
        raise SpecError(str(error)) from None
    options, found = _options(text)
    code = "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines()).replace("\\\n", " ")
    nodes, machine = _nodes(options)
    kind = MachineType("node", machine, nodes, nodes, line=options["cpus-per-task"].line)
    run = re.search(r"\btranskd run\b(.*)", code)
    spec = re.search(r"--cluster[= ](\S+)", run[1]) if run else None
    line = next((number for number, row in enumerate(text.splitlines(), 1) if re.match(r"[^#]*transkd run", row)), 1)
    found += [*_values(text, options), *_tasks(options, nodes), *_again(options, code), *_ray(text, code)]
    if run and nodes > 1 and (spec is None or spec[1] == "local"):
        message = "the command names no cluster spec: runs would train on the first node alone"
        found.append(Finding("entrypoint-local", message, "add --cluster SPEC", line))
    return Launcher([kind], [EVERYWHERE], found, spec=spec[1] if spec else "", command_line=line)


def _options(text: str) -> tuple[dict[str, _Option], list[Finding]]:
    """The options that Slurm reads, with defaults for those that count here, and those that it does not read."""
    options = {"nodes": _Option("1", 1), "cpus-per-task": _Option("1", 1)}
    found: list[Finding] = []
    begun = False
    for number, row in enumerate(text.splitlines(), 1):
        begun = begun or bool(row.strip() and not row.startswith("#"))
        given = re.match(r"#SBATCH\s+--?([\w-]+?)(?:[=\s]\s*(\S+)|(\d+))?(?:\s|$)", row)
        if given is None:
            if re.match(r"#\s+SBATCH\s+-|#(?!SBATCH)(?i:sbatch)\s+-", row):
                message = f"`{row.strip()}` is a comment to Slurm"
                found.append(Finding("option-ignored", message, "write #SBATCH; ## before what is to wait", number))
            continue
        name = _SHORT.get(given[1], given[1])
        if begun:
            message = f"#SBATCH --{name} stands below the first command, where Slurm does not read it"
            found.append(Finding("option-ignored", message, "move it to the other #SBATCH lines", number))
            continue
        options[name] = _Option(given[2] or given[3] or "", number)
        if len(given[1]) > 1 and "--" not in row[: given.start(1)]:
            found.append(Finding("unknown-key", f"sbatch has no option -{name}", f"did you mean '--{name}'?", number))
        close = difflib.get_close_matches(name, OPTIONS, n=1, cutoff=0.8)
        if close and name not in OPTIONS:
            found.append(
                Finding("unknown-key", f"sbatch has no option --{name}", f"did you mean '{close[0]}'?", number)
            )
    return options, found


def _count(options: dict[str, _Option], name: str, default: int) -> int:
    """The first number of an option: 4 of `4`, `4-8` and `gpu:a100:4`."""
    number = re.search(r"(?:^|:)(\d{1,9})", options[name].value) if name in options else None
    return min(int(number[1]), LARGEST) if number else default


def _nodes(options: dict[str, _Option]) -> tuple[int, Machine]:
    nodes = max(1, _count(options, "nodes", 1))
    gpus = _count(options, "gpus-per-node", _count(options, "gpus-per-task", -1))
    if gpus < 0:
        gpus = _of_gres(options["gres"].value) if "gres" in options else _count(options, "gpus", 0) // nodes
    return nodes, Machine(_count(options, "cpus-per-task", 1), gpus)


def _of_gres(value: str) -> int:
    """GPUs of a node, of `gpu:4`, `gpu:a100:4` or `gpu`, which is one; other resources are none."""
    found = [re.fullmatch(r"gpu(?::[A-Za-z][\w.-]*)?(?::(\d{1,9}))?(?:\(.*\))?", kind) for kind in value.split(",")]
    return sum(min(int(kind[1] or 1), LARGEST) for kind in found if kind)


def _values(text: str, options: dict[str, _Option]) -> Iterator[Finding]:
    """What Slurm refuses, or reads otherwise than it was meant."""
    if not text.startswith("#!"):
        message = "sbatch refuses a script that does not name its interpreter"
        yield Finding("wrong-value", message, "begin the first line with #!/bin/bash", 1)
    for name, (pattern, form) in _FORMATS.items():
        if name in options and not re.fullmatch(pattern, options[name].value):
            message = f"--{name} is {options[name].value or 'empty'}, which Slurm does not read"
            yield Finding("wrong-value", message, f"write {form}", options[name].line)
    limit = options.get("time")
    if limit and re.fullmatch(_MINUTES, limit.value):
        message = f"--time={limit.value} is {limit.value.partition(':')[0]} minutes to Slurm"
        yield Finding("wrong-value", message, "write hours, minutes and seconds, as in --time=24:00:00", limit.line)
    for name in ("mem", "mem-per-cpu", "mem-per-gpu"):
        size = re.fullmatch(r"([1-9]\d{0,9})([KMGT]?)", options[name].value.upper()) if name in options else None
        if size and int(size[1]) * _MEGABYTES[size[2]] * _per_node(name, options) < LEAST_MEGABYTES:
            message = f"--{name}={options[name].value} is in megabytes where it has no other unit"
            yield Finding("memory-small", message, f"write the unit, as in --{name}={size[1]}G", options[name].line)


def _per_node(name: str, options: dict[str, _Option]) -> int:
    """How often a node gets the memory of an option."""
    return _count(options, "cpus-per-task", 1) if name == "mem-per-cpu" else 1


def _tasks(options: dict[str, _Option], nodes: int) -> Iterator[Finding]:
    for name, most in (("ntasks-per-node", 1), ("ntasks", nodes)):
        if (tasks := _count(options, name, most)) != most:
            message = f"--{name} is {tasks}, and one Ray on each node takes all of its CPUs and GPUs"
            remedy = "set --ntasks-per-node=1, and --cpus-per-task to the CPUs of a node"
            yield Finding("tasks-per-node", message, remedy, options[name].line)
    if "time" not in options:
        message = "--time is not set, and the site's limit, which may be minutes, ends the job"
        yield Finding("time-unstated", message, "set --time", options["nodes"].line)


def _again(options: dict[str, _Option], code: str) -> Iterator[Finding]:
    """Whether the study goes on after the time limit and after the loss of a node."""
    signal = options.get("signal", _Option("", options["nodes"].line))
    name = re.fullmatch(r"R?B:(?:SIG)?([A-Z]+\d?)(?:@(\d{1,9}))?", signal.value)
    trap = rf"\btrap\b.*\b(SIG)?{name[1]}\b" if name else "$^"
    if name is None or "requeue" not in options or not re.search(trap, code) or "scontrol requeue" not in code:
        message = "after its time limit, or the loss of a node, nobody starts the study again"
        remedy = (
            "set --requeue and --signal=B:USR1@300, and let a trap of USR1 stop the driver and call scontrol requeue"
        )
        yield Finding("not-restarted", message, remedy, signal.line)
    elif int(name[2] or 60) < GRACE_S:
        message = f"the driver has {name[2]} s before the time limit to stop the runs and write the report"
        yield Finding("grace-period-short", message, f"set --signal=B:{name[1]}@300", signal.line)


def _ray(text: str, code: str) -> Iterator[Finding]:
    rows = list(enumerate(text.splitlines(), 1))
    start = next((number for number, row in rows if re.match(r"[^#]*ray start.*--head", row)), 1)
    if "ray start" in code and "RAY_AUTH_MODE=token" not in code:
        message = "Ray starts without a token: other users of a node could run code as you"
        yield Finding("no-token", message, "export RAY_AUTH_MODE=token before `ray start`", start)
    if "--head" in code and not re.search(r"--dashboard-host[= ]0\.0\.0\.0", code):
        message = (
            "the dashboard listens on the first node alone, and Ray Train ends the workers of stopped runs through it"
        )
        yield Finding("dashboard-hidden", message, "add --dashboard-host=0.0.0.0 to `ray start --head`", start)
    if "TRANSKD_STORE" not in code and "--store" not in code:
        message = "the script does not ask for TRANSKD_STORE, and the default folder may not be on a shared disk"
        remedy = ': "${TRANSKD_STORE:?set it to a folder that every node mounts, or a bucket}"'
        yield Finding("store-not-shared", message, f"add {remedy}", start)
