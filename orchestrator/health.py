"""Health: what `transkd doctor` checks of this machine, its store and the machines of a cluster, a line each."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import psutil
from packaging.requirements import Requirement

from cluster.launcher_file import SHM_GIB
from cluster.spec import ClusterSpec
from orchestrator.prepare.machine import Gpus
from orchestrator.prepare.machine_facts import Facts, existing
from orchestrator.running.ray_session import check_address
from orchestrator.store.folder import Store
from orchestrator.tracking.address import shown, uri_of
from orchestrator.tracking.mlflow_server import Server
from trainer.compiler import check_compiler
from trainer.config import UserError, counted, message_of

OK, WARNING, PROBLEM = "ok", "warning", "problem"
"""How a check ended; only a problem stops a study."""
GIB = 2**30
FREE_GIB, NEEDED_GIB = 10, 1
"""Free disk space below which there is a warning, and a problem."""
CLOCK_S = 2.0
"""The largest difference between clocks, beside the time that an answer took."""
TOLD = ("Python", "torch", "ray", "mlflow", "optuna")
"""The versions that are shown where all are right."""
ANSWERING = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "4", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""How long an MLflow server is asked, in seconds and retries."""
NETWORK_DISKS = ("nfs", "cifs", "smb", "fuse", "lustre", "beegfs", "gpfs", "ceph", "9p", "afs")
"""How the names of network file systems begin."""


class Line(NamedTuple):
    """One check: what was checked, how it ended, what was found, and what to do."""

    what: str
    state: str
    found: str
    remedy: str = ""


def refusal(what: str, check: Callable[[], object], fine: str) -> Line:
    """A check that raises UserError, whose message ends with the remedy."""
    try:
        check()
    except UserError as error:
        found, _, remedy = str(error).rpartition("; ")
        return Line(what, PROBLEM, found or remedy, remedy if found else "")
    return Line(what, OK, fine)


def requirements() -> list[Requirement]:
    """The packages that this project needs, with their ranges, and Python's under its own name."""
    file = Path(__file__).parents[1] / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        named, python = project["dependencies"], project["requires-python"]
    else:
        named, python = metadata.requires("transkd") or [], metadata.metadata("transkd")["Requires-Python"]
    found = [Requirement(text) for text in named]
    needed = [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]
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


def store_works(store: Store) -> Line:
    """Whether files can be written, locked, linked and renamed where the store is or will be."""
    folder = existing(store.root)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as temporary:
            first, second = Path(temporary, "first"), Path(temporary, "second")
            with first.open("w", encoding="utf-8") as file, first.open("a", encoding="utf-8") as other:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remedy = "name a store on a file system that has them"
                    return Line("store", PROBLEM, f"locks do not hold at {folder}: two drivers would write", remedy)
                file.write("x")
                file.flush()
                os.fsync(file.fileno())
            os.link(first, second)
            first.replace(second)
    except OSError as error:
        return Line(
            "store", PROBLEM, f"{folder}: {message_of(error)}", "name a folder that you may write, with --store"
        )
    return Line("store", OK, f"{store.root} can be written, locked and renamed in")


def file_system(folder: Path) -> str:
    """The kind of file system that holds a folder; "" where it is unknown."""
    there = str(existing(folder).resolve())
    holding = [part for part in psutil.disk_partitions(all=True) if Path(there).is_relative_to(part.mountpoint)]
    return max(holding, key=lambda part: len(part.mountpoint)).fstype if holding else ""


def tracking(store: Store) -> Line:
    """Whether MLflow can be reached. Runs train without it too."""
    if (wrong := refusal("MLflow", lambda: uri_of(store), "")).state == PROBLEM:
        return wrong
    uri = uri_of(store)
    if uri.startswith("sqlite"):
        database = Path("/", unquote(uri.partition(":///")[2].partition("?")[0]))
        if (kind := file_system(database.parent)).startswith(NETWORK_DISKS):
            return Line("MLflow", WARNING, f"SQLite on {kind} gets damaged", "name a server in MLFLOW_TRACKING_URI")
        return Line("MLflow", OK, f"{shown(uri)}{'' if database.exists() else ', made by the first run'}")
    for name, value in ANSWERING.items():
        os.environ.setdefault(name, value)
    try:
        Server(uri, store.artifacts).ask()
    except Exception as error:
        return Line("MLflow", WARNING, f"{shown(uri)}: {message_of(error)[:200]}", "start it, or correct its address")
    return Line("MLflow", OK, f"{shown(uri)} answers")


def token() -> list[Line]:
    """Whether the token is there that a cluster asks for; nothing where none is asked for."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return []
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or file.is_file():
        return [Line("token", OK, "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else str(file))]
    return [Line("token", PROBLEM, f"RAY_AUTH_MODE is token, and there is no {file}", "copy the cluster's there")]


def data(here: Facts, spec: ClusterSpec) -> Iterator[Line]:
    """Whether the data sets of a spec are here."""
    for name, root in spec.data_roots.items():
        if here.roots[name]:
            yield Line(f"data {name}", OK, root)
        else:
            yield Line(f"data {name}", PROBLEM, f"no file in {root}", "correct data_roots, or mount it")


def machine(here: Facts, spec: ClusterSpec, store: Store, folders: Mapping[str, str]) -> list[Line]:
    """All checks of this machine. `folders`: what is kept on a disk -> where."""
    local = spec.address == "local"
    lines = versions(here.packages, requirements())
    if local:
        lines.append(gpu(here.gpus, spec.gpus_per_worker))
        if spec.compile:
            device = "cuda" if spec.gpus_per_worker else "cpu"
            lines.append(refusal("compiler", lambda: check_compiler(device), f"torch.compile has what {device} needs"))
    fine = "its folder is short enough and can be written" if local else f"{spec.address} answers"
    lines.append(refusal("Ray", lambda: check_address(spec.address), fine))
    lines += token()
    lines += shared_memory(here.shm_bytes)
    lines += [disk(f"disk of {name}", folder, here.free_bytes[folder]) for name, folder in folders.items()]
    return [*lines, store_works(store), tracking(store), *data(here, spec)]


def cluster(
    driver: Facts, nodes: Mapping[str, Facts], silent: Mapping[str, str], asked: tuple[float, float], spec: ClusterSpec
) -> list[Line]:
    """The machines of a cluster beside the driver's; both by address. `asked`: when they were, and when all had
    answered, by the driver's clock."""
    lines = [Line(where, PROBLEM, why, "see that it is up and has this project") for where, why in silent.items()]
    for where, node in nodes.items():
        found = [line for line in _beside(driver, node, where, asked, spec) if line.state != OK]
        lines += found or [Line(where, OK, f"as the driver's machine; {counted(len(node.gpus.names), 'GPU')}")]
    if spec.gpus_per_worker and nodes and not spec.scales and not any(node.gpus.names for node in nodes.values()):
        lines.append(
            Line("GPU", PROBLEM, "no machine has one that torch can use", "set gpus_per_worker: 0, or add one")
        )
    return lines


def _beside(driver: Facts, node: Facts, where: str, asked: tuple[float, float], spec: ClusterSpec) -> Iterator[Line]:
    for name, version in driver.packages.items():
        if (other := node.packages.get(name, "")) != version:
            found = f"{name} {other or 'is missing'}, and the driver has {version}"
            yield Line(where, PROBLEM, found, "install the driver's version there")
    if node.gpus.present > len(node.gpus.names):
        yield gpu(node.gpus, spec.gpus_per_worker, where)._replace(state=PROBLEM)
    yield from shared_memory(node.shm_bytes, f"/dev/shm of {where}")
    yield from (disk(where, folder, free) for folder, free in node.free_bytes.items())
    for name, root in spec.data_roots.items():
        if not node.roots[name]:
            yield Line(where, PROBLEM, f"no file of {name} in {root}", "mount it there, or correct data_roots")
        elif driver.roots[name] and node.roots[name] != driver.roots[name]:
            yield Line(where, PROBLEM, f"other files of {name} in {root} than the driver's", "mount one folder on all")
    apart = max(asked[0] - node.time_s, node.time_s - asked[1], 0.0)
    if apart > CLOCK_S:
        yield Line(where, WARNING, f"its clock differs by {apart:.0f} s", "set the clocks by NTP")
