"""What launcher files of all kinds have in common: documents with line numbers, machine types, versions of Ray."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from cluster.lint import Finding
from cluster.machine_types import Machine
from cluster.overrides import LARGEST
from cluster.spec import SpecError
from trainer.config import UserError, message_of, parse_documents, read_text

IDLE_S = 60
"""An idle machine that ends earlier ends between two runs, and the next one boots again."""
IDLE_MOST_S = 3600
"""An idle machine that ends later costs an hour or more for nothing."""
SHM_GIB = 2
"""Least /dev/shm in GiB, for Ray's object store and PyTorch."""
HEAD_GIB = 8
"""Memory of a head in GiB: Ray's own processes, the driver, MLflow."""
DISK_GB = 60
"""Least disk of a cloud's machine: an image with NVIDIA's driver takes 50 to 80, the packages 10, and then the data."""


class Document:
    """One YAML document: its data, and the lines of its keys."""

    def __init__(self, data: Any, node: yaml.Node | None) -> None:
        self.data = data
        self.node = node

    def line(self, *keys: Any) -> int | None:
        """The line of the deepest of these keys that is there, or of the document's beginning."""
        node = self.node
        line = None if node is None else node.start_mark.line + 1
        for key in keys:
            found = None
            if isinstance(node, yaml.MappingNode):
                found = next(((name, value) for name, value in node.value if name.value == str(key)), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                found = (node.value[key], node.value[key])
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return line


def documents(path: Path) -> list[Document]:
    """The documents of a YAML file. Raises SpecError where it cannot be read."""
    try:
        return [Document(data, node) for data, node in parse_documents(read_text(path), f"launcher file {path}")]
    except UserError as error:
        raise SpecError(str(error)) from None
    except OSError as error:
        raise SpecError(f"cannot read launcher file {path}: {message_of(error)}") from None


class MachineType(NamedTuple):
    """A node type of a launcher with its smallest and largest count; the head has `least` = `most` = 1."""

    name: str
    machine: Machine
    least: int
    most: int
    head: bool = False
    line: int | None = None
    spot: bool = False
    """Whether the cloud may take the machine back."""
    priority: int = 0
    """Of the types that a run fits on, the autoscaler starts the one with the highest."""
    at_least: bool = False
    """Whether the cloud may give a machine with more CPUs."""
    has_role: bool = True
    """Whether it may have a role by which it can use buckets of its cloud."""


class Launcher(NamedTuple):
    """The parts of a launcher file that lint checks. `mounts`: folders that all machines share."""

    types: list[MachineType]
    """Empty where the file names hosts instead: their size is not in it."""
    mounts: list[str]
    findings: list[Finding]
    """Problems of the file itself, independent of the spec."""
    read_only: tuple[str, ...] = ()
    """Those of `mounts` that a machine cannot write to."""
    spec: str = ""
    """The cluster spec that its command names; empty where it has none."""
    study: str = ""
    """The study that its command runs."""
    limit: int | None = None
    """The most workers of all types together."""
    mount_line: int | None = None
    copied: tuple[str, ...] = ()
    """Folders that each machine copies from a bucket onto its own disk when it starts."""
    buckets_by_role: str = ""
    """How the addresses begin that need a role of the machines, such as s3://; empty where none does."""
    command_line: int | None = None

    @property
    def machines(self) -> list[Machine]:
        """The largest cluster: each type at its most, and of the workers at most `limit`, the largest ones."""
        most = LARGEST if self.limit is None else self.limit
        workers = [kind.machine for kind in self.types if not kind.head for _ in range(min(kind.most, most))]
        largest = sorted(workers, key=lambda machine: (machine.gpus, machine.cpus), reverse=True)
        return [*(kind.machine for kind in self.types if kind.head), *largest[:most]]


def table(value: Any) -> dict[Any, Any]:
    """A mapping, or an empty one in place of anything else; what else it is the schema's check says."""
    return value if isinstance(value, dict) else {}


def array(value: Any) -> list[Any]:
    """The same for lists."""
    return value if isinstance(value, list) else []


def other_versions(document: Document) -> Iterator[Finding]:
    """Ray versions in images, packages and `rayVersion` that differ from the one installed here."""
    from importlib.metadata import version

    ours = version("ray")
    for keys, text in texts(document.data):
        for found in re.findall(r"\bray(?:-ml|-llm)?:(\d+\.\d+\.\d+)|\bray(?:\[[^]]*\])?==(\d+\.\d+\.\d+)", text):
            theirs = "".join(found)
            if theirs != ours:
                yield _differs(f"{text.strip()[:60]} has Ray {theirs}", ours, document.line(*keys))
        for asked in re.findall(r"\bray(?:\[[^]]*\])?\s*((?:[<>!~]=?\s*\d[\d.*]*[\s,]*)+)", text):
            try:
                fits = ours in SpecifierSet(asked.strip(" ,"))
            except InvalidSpecifier:
                fits = False
            if not fits:
                yield _differs(f"{text.strip()[:60]} asks for Ray {asked.strip(' ,')}", ours, document.line(*keys))
        if keys[-1] == "rayVersion" and text != ours:
            yield _differs(f"rayVersion is {text}", ours, document.line(*keys))


def _differs(message: str, ours: str, line: int | None) -> Finding:
    return Finding("versions-differ", f"{message}, the one here is {ours}", f"use {ours} on all machines", line)


def texts(data: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """The strings of a document, with the keys that lead to them."""
    if isinstance(data, str):
        yield keys, data
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from texts(value, (*keys, key))


def wrong_counts(types: list[MachineType], lines: dict[str, int | None]) -> list[Finding]:
    """Minima above the maximum, and GPU machines that run while no study does."""
    swapped = [
        Finding(
            "limits-swapped",
            f"the minimum of {kind.name} is {kind.least}, above its maximum {kind.most}",
            "lower the minimum",
            lines.get(kind.name),
        )
        for kind in types
        if kind.least > kind.most
    ]
    return swapped + [
        Finding(
            "always-on",
            f"{kind.least} of {kind.name} run while no study does",
            "choose a head without GPUs" if kind.head else f"set the minimum of {kind.name} to 0",
            lines.get(kind.name),
        )
        for kind in types
        if kind.least and kind.machine.gpus
    ]


def disk_findings(name: str, size: Any, line: int | None) -> Iterator[Finding]:
    """A disk, in GB, on which image, packages and data have no room."""
    number = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:GB?|GiB)?", str(size))
    if number and float(number[1]) < DISK_GB:
        message = f"the disk of {name} has {number[1]} GB, too little for NVIDIA's driver, PyTorch and the data"
        yield Finding("disk-small", message, f"write {DISK_GB} or more, 200 with the packaged data sets", line)


def idle_findings(seconds: Any, name: str, line: int | None) -> Iterator[Finding]:
    """An idle timeout of seconds, or of hours."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return
    if seconds < IDLE_S:
        message = f"{name} ends an idle machine after {seconds:g} s, and the next run waits until another has booted"
        yield Finding("idle-timeout-short", message, f"set it to {IDLE_S} s or more", line)
    elif seconds > IDLE_MOST_S:
        message = f"{name} keeps an idle machine for {seconds / 3600:.3g} h, which costs as one that works"
        yield Finding("idle-timeout-long", message, f"set it to {IDLE_MOST_S} s or less", line)
