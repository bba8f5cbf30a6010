"""Checks of what machines say of themselves, a line each: of one machine, and of a cluster's beside the driver's."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from cluster.launchers.launcher_file import SHM_GIB
from cluster.spec import ClusterSpec
from orchestrator.prepare.machine import Gpus
from orchestrator.prepare.machine_facts import Facts
from trainer.config import counted

OK, WARNING, PROBLEM = "ok", "warning", "problem"
"""How a check ended; only a problem stops a study."""
GIB = 2**30
FREE_GIB, NEEDED_GIB = 10, 1
"""Free disk space below which there is a warning, and a problem."""
CLOCK_S = 2.0
"""The largest difference between clocks, beside the time that an answer took."""
OF_STUDIES = ("train", "orchestrate")
"""The extras of pyproject.toml without which no study runs."""
TOLD = ("Python", "torch", "ray", "mlflow", "optuna")
"""The versions that are shown where all are right."""
OF_RUNS = ("Python", "torch", "torchvision", "timm", "ray", "numpy", "pillow", "pyarrow", "pydantic", "safetensors")
"""What the processes of runs use: on all machines of a cluster in one version."""


class Line(NamedTuple):
    """One check: what was checked, how it ended, what was found, and what to do."""

    what: str
    state: str
    found: str
    remedy: str = ""


def requirements() -> list[Requirement]:
    """The packages that a study needs, with their ranges, and Python's under its own name."""
    file = Path(__file__).parents[2] / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"]
        named = [*project["dependencies"], *(text for extra in OF_STUDIES for text in extras[extra])]
        python = project["requires-python"]
    else:
        named, python = metadata.requires("transkd") or [], metadata.metadata("transkd")["Requires-Python"]
    found = [Requirement(text) for text in named]
    needed = [
        one
        for one in found
        if one.name != "transkd"
        and (one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in OF_STUDIES))
    ]
    return [Requirement(f"Python{python}"), *needed]


def versions(installed: Mapping[str, str], needed: Sequence[Requirement]) -> list[Line]:
    """Whether the packages are in their ranges; a line each for those that are not."""
    lines = []
    for one in needed:
        version = installed.get(one.name, "")
        if not version or not one.specifier.contains(version, prereleases=True):
            has = f"{one.name} {version}" if version else f"no {one.name}"
            how = "make an environment with it" if one.name == "Python" else f"pip install '{one.name}{one.specifier}'"
            lines.append(Line("versions", PROBLEM, f"{has} is installed, and {one.specifier} is needed", how))
    return lines or [Line("versions", OK, ", ".join(f"{name} {installed[name]}" for name in TOLD))]


def gpu(there: Gpus, per_worker: float, what: str = "GPU") -> Line:
    """Whether runs would use a GPU, and why torch can use none of those that are there."""
    needs = f"each worker needs {per_worker:g}"
    lacking = PROBLEM if per_worker else WARNING
    if there.names:
        each = ", ".join(dict.fromkeys(there.names))
        found = f"{counted(len(there.names), 'GPU')} ({each}), driver {there.driver}, CUDA {there.torch_cuda}"
        if per_worker:
            return Line(what, OK, f"{found}; {needs}")
        return Line(what, WARNING, f"{found}, but runs train on CPUs", "add --cluster gpu")
    if not there.present:
        if per_worker:
            return Line(what, PROBLEM, f"no GPU, and {needs}", "set gpus_per_worker: 0, or go where GPUs are")
        return Line(what, OK, "none: runs train on CPUs")
    found = f"torch cannot use the {counted(there.present, 'GPU')} here"
    if not there.torch_cuda:
        built = f" {there.driver_cuda}" if there.driver_cuda else ""
        return Line(what, lacking, f"{found}: it is built for CPUs only", f"install torch for CUDA{built}")
    if there.driver_cuda and _major(there.driver_cuda) < _major(there.torch_cuda):
        why = f"it is built for CUDA {there.torch_cuda}, and driver {there.driver} knows {there.driver_cuda}"
        return Line(what, lacking, f"{found}: {why}", f"update the driver, or install torch for {there.driver_cuda}")
    if (hidden := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return Line(what, lacking, f"{found}: CUDA_VISIBLE_DEVICES is '{hidden}'", "unset it, or name GPUs in it")
    return Line(what, lacking, f"{found}: {there.error}", "see that `nvidia-smi` works for this user")


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def disk(what: str, folder: str, free_bytes: int) -> Line:
    """Whether there is room on the disk of a folder."""
    free = free_bytes / GIB
    state = PROBLEM if free < NEEDED_GIB else WARNING if free < FREE_GIB else OK
    return Line(what, state, f"{free:,.1f} GiB free at {folder}", "" if state == OK else "make room, or name another")


def shared_memory(size_bytes: int | None, what: str = "/dev/shm") -> list[Line]:
    """Whether Ray's object store and PyTorch's shared memory have room; nothing where the system has no such folder."""
    if size_bytes is None:
        return []
    state = OK if size_bytes >= SHM_GIB * GIB else WARNING
    remedy = "" if state == OK else f"give the container --shm-size={SHM_GIB}g"
    return [Line(what, state, f"{size_bytes / GIB:,.1f} GiB", remedy)]


def data(here: Facts, spec: ClusterSpec) -> Iterator[Line]:
    """Whether the data sets of a spec are here."""
    for name, root in spec.data_roots.items():
        if here.roots[name]:
            yield Line(f"data {name}", OK, root)
        else:
            yield Line(f"data {name}", PROBLEM, f"no file in {root}", "correct data_roots, or mount it")


def cluster(
    driver: Facts, nodes: Mapping[str, Facts], silent: Mapping[str, str], asked: tuple[float, float], spec: ClusterSpec
) -> list[Line]:
    """The machines of a cluster beside the driver's; both by address. `asked`: when they were, and when all had
    answered, by the driver's clock."""
    lines = [Line(where, PROBLEM, why, "see that it is up and has this project") for where, why in silent.items()]
    for where, node in nodes.items():
        found = [line for line in _beside(driver, node, where, asked, spec) if line.state != OK]
        lines += found or [Line(where, OK, f"as the driver's machine; {counted(len(node.gpus.names), 'GPU')}")]
    if spec.most_gpus and nodes and not spec.scales and not any(node.gpus.names for node in nodes.values()):
        lines.append(
            Line("GPU", PROBLEM, "no machine has one that torch can use", "set gpus_per_worker: 0, or add one")
        )
    return lines


def _beside(driver: Facts, node: Facts, where: str, asked: tuple[float, float], spec: ClusterSpec) -> Iterator[Line]:
    for name, version in driver.packages.items():
        if (other := node.packages.get(name, "")) != version:
            found = f"{name} {other or 'is missing'}, and the driver has {version}"
            state = PROBLEM if name in OF_RUNS else WARNING
            yield Line(where, state, found, "install the driver's version there")
    if node.gpus.present > len(node.gpus.names):
        yield gpu(node.gpus, spec.most_gpus, where)
    yield from shared_memory(node.shm_bytes, f"/dev/shm of {where}")
    yield from (disk(where, folder, free) for folder, free in node.free_bytes.items())
    for name, root in spec.data_roots.items():
        if not node.roots[name]:
            yield Line(where, PROBLEM, f"no file of {name} in {root}", "mount it there, or correct data_roots")
        elif driver.roots[name] and node.roots[name] != driver.roots[name]:
            yield Line(where, PROBLEM, f"other files of {name} in {root} than the driver's", "mount one folder on all")
    for port, why in node.unreached.items():
        found = f"it cannot reach the head's {port} ({why})"
        yield Line(where, PROBLEM, found, "open that port of the head to the cluster's machines")
    apart = max(asked[0] - node.time_s, node.time_s - asked[1], 0.0)
    if apart > CLOCK_S:
        yield Line(where, WARNING, f"its clock differs by {apart:.0f} s", "set the clocks by NTP")
