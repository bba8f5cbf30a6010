"""Launcher files (`ray up`, KubeRay, Slurm, SkyPilot): whether the runs of a spec fit on the machines they start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cluster.concurrency import concurrency_on
from cluster.launchers.kuberay import kuberay
from cluster.launchers.launcher_file import Document, Launcher, documents, table, texts
from cluster.launchers.ray_up import ray_up
from cluster.launchers.roles import without_role
from cluster.launchers.skypilot import is_task, skypilot
from cluster.launchers.slurm import is_script, slurm
from cluster.lint import Finding, idle_gpus, unnamed_bucket
from cluster.machine_types import Machine, workers_on
from cluster.spec import ClusterSpec, SpecError, amounts, variants
from cluster.spec_file import LAUNCHERS, load
from trainer.config import UserError, read_text

_PLACEHOLDER = re.compile(r"\b(?:ami|fs)-0{17}|[\w.-]*example\.com[\w./:-]*|\bfill-in(?:-[a-z]+)*\b")


def read(path: Path) -> Launcher:
    """Parse a launcher file. Raises SpecError unless it is one of `ray up`, `sbatch`, `sky launch` or KubeRay."""
    if _is_script(path):
        return slurm(path)
    found = documents(path)
    for document in found:
        data = table(document.data)
        if "cluster_name" in data:
            return _with_placeholders(ray_up(document), found)
        if data.get("kind") in ("RayJob", "RayCluster"):
            return _with_placeholders(kuberay(document, found), found)
        if is_task(data):
            return _with_placeholders(skypilot(document), found)
    raise SpecError(
        f"{path} is no launcher file: expected `cluster_name:` (ray up), `kind: RayJob` or `kind: RayCluster` (kubectl "
        "apply), `#SBATCH` (sbatch), or `resources:` and `run:` (sky launch)"
    )


def _is_script(path: Path) -> bool:
    try:
        return is_script(read_text(path))
    except (UserError, OSError):
        return False  # the reader of documents says why


def is_launcher(path: Path) -> bool:
    """Whether a file is for `ray up`, `kubectl apply`, `sbatch` or `sky launch` instead of a cluster spec."""
    if not path.exists():  # the name of a packaged spec
        return False
    try:
        return _is_script(path) or bool(
            re.search(r"^(cluster_name|apiVersion|available_node_types|setup|run):", read_text(path), re.MULTILINE)
        )
    except (UserError, OSError):
        return False  # the reader of specs says why


def spec_beside(path: Path) -> str:
    """A launcher file's cluster spec: `aws.yaml` beside `ray-up-aws.yaml`, or else the packaged `aws`."""
    name = path.stem
    for prefix in LAUNCHERS:
        name = name.removeprefix(prefix)
    beside = path.with_name(f"{name}.yaml")
    return str(beside) if beside.is_file() and beside != path else name


def launchers_beside(path: Path) -> list[Path]:
    """The launcher files of a cluster spec: `ray-up-aws.yaml` beside `aws.yaml`, `slurm.sh` beside `slurm.yaml`."""
    names = [*(f"{prefix}{path.stem}.yaml" for prefix in LAUNCHERS), f"{path.stem}.sh"]
    found = [file for name in names if (file := path.with_name(name)).is_file()]
    return [file for file in found if file.suffix == ".yaml" or _is_script(file)]


def lint_launcher(launcher: Launcher, spec: ClusterSpec) -> list[Finding]:
    """Problems that would hang a study or waste money when `spec` runs on the machines of `launcher`."""
    return [
        *launcher.findings,
        *fits(launcher, spec),
        *_wrong_machines(launcher, spec),
        *_reaches_the_store(launcher, spec),
        *unnamed_bucket(spec),
        *without_role(launcher, spec.store or ""),
        *_other_spec(launcher, spec),
    ]


def fits(launcher: Launcher, spec: ClusterSpec) -> Iterator[Finding]:
    """Whether the runs fit on the launcher's machines, and its numbers are those of the spec."""
    if not launcher.types:
        return
    machines = [machine for machine in launcher.machines if machine.cpus or machine.gpus]
    line = launcher.types[-1].line
    for each in variants(spec).values():
        try:
            concurrency_on(each, machines)
        except SpecError as error:
            message, _, remedy = str(error).partition("; ")
            yield Finding("cannot-fit", message, remedy, line, "workers")
    for kind in launcher.types:
        starved = None if kind.head or kind.at_least else idle_gpus(spec, kind.machine)
        if starved and starved.code == "gpus-starved":
            yield starved._replace(message=f"{kind.name}: {starved.message}", line=kind.line)
    yield from _types_differ(launcher, spec, line)
    sizes = {kind.machine for kind in launcher.types}
    stated = Machine(spec.cpus_per_machine or 0, spec.gpus_per_machine)
    if spec.cpus_per_machine is not None and stated not in sizes:
        there = ", ".join(f"{size.cpus:g} CPUs and {size.gpus:g} GPUs" for size in sorted(sizes))
        message = f"cpus_per_machine is {stated.cpus:g} and gpus_per_machine {stated.gpus:g}, the launcher has {there}"
        yield Finding(
            "machine-differs", message, "set them to a machine type of the launcher", line, "cpus_per_machine"
        )
    for name, limit, most in (
        ("max_cpus", spec.max_cpus, sum(machine.cpus for machine in machines)),
        ("max_gpus", spec.max_gpus, sum(machine.gpus for machine in machines)),
    ):
        if limit is not None and limit != most:
            message = f"{name} is {limit:g} but the launcher starts up to {most:g}"
            yield Finding("limits-differ", message, f"set {name}: {most:g}", line, name)


def _types_differ(launcher: Launcher, spec: ClusterSpec, line: int | None) -> Iterator[Finding]:
    """Machine types of the spec that are not the launcher's."""
    kinds = {kind.name: kind for kind in launcher.types if not kind.head}
    for name, stated in spec.machine_types.items():
        kind = kinds.get(name)
        if kind is None:
            message = f"machine_types has {name}, and the launcher has {', '.join(kinds) or 'no workers'}"
            yield Finding("machine-differs", message, "name a machine type of the launcher", line, "machine_types")
        elif kind.machine != (stated.cpus, stated.gpus):
            sizes = [amounts({"CPU": cpus, "GPU": gpus}) for cpus, gpus in ((stated.cpus, stated.gpus), kind.machine)]
            message = f"{name} has {sizes[0]} in machine_types, the launcher {sizes[1]}"
            yield Finding("machine-differs", message, "set them as the launcher has them", kind.line, "machine_types")
        elif kind.most != stated.most:
            message = f"most of {name} is {stated.most} but the launcher starts up to {kind.most}"
            yield Finding("limits-differ", message, f"set most: {kind.most}", kind.line, "machine_types")


def _holds_a_worker(machine: Machine, spec: ClusterSpec) -> bool:
    return any(
        workers_on(machine.cpus, machine.gpus, each.cpus_per_worker, each.gpus_per_worker)
        for each in variants(spec).values()
    )


def _wrong_machines(launcher: Launcher, spec: ClusterSpec) -> Iterator[Finding]:
    """A head that grows workers and trains too, and workers that are never started."""
    workers = [kind for kind in launcher.types if not kind.head]
    holds = {kind.name: _holds_a_worker(kind.machine, spec) for kind in launcher.types}
    for kind in launcher.types:
        if kind.head and holds[kind.name] and any(other.most > other.least for other in workers):
            message = f"a worker fits on {kind.name}, the head: a run that fills its memory ends all of them"
            yield Finding("head-takes-runs", message, "give the head 0 CPUs for runs", kind.line)
        elif (
            not kind.head and kind.machine.cpus and not holds[kind.name] and any(holds[other.name] for other in workers)
        ):
            message = f"no worker of a run fits on {kind.name}, so that it is never started"
            yield Finding("never-started", message, "make its resources as large as the other types'", kind.line)


def _reaches_the_store(launcher: Launcher, spec: ClusterSpec) -> Iterator[Finding]:
    line = launcher.mount_line
    roots = ((f"data_roots.{name}", Path(folder)) for name, folder in spec.data_roots.items())
    for name, folder in [("store", spec.store_folder), *roots]:
        there = launcher.mounts if name == "store" else [*launcher.mounts, *launcher.copied]
        if folder and not any(folder.is_relative_to(each) for each in there):
            message = f"{name} is {folder} but machines share {', '.join(launcher.mounts) or 'nothing'}"
            if launcher.copied and name != "store":
                message += f" and copy {', '.join(launcher.copied)}"
            remedy = "mount it on every machine" + (", or copy it there" if name != "store" else "")
            yield Finding("not-mounted", message, remedy, line)

    for mount in launcher.read_only:
        if spec.store_folder and spec.store_folder.is_relative_to(mount):
            message = f"store is {spec.store}, and {mount} is mounted read-only"
            yield Finding("read-only", message, "remove readOnly from the mount and its volume", line)


def _other_spec(launcher: Launcher, spec: ClusterSpec) -> Iterator[Finding]:
    """A command that names another spec than the one that goes with the file. Files of the image are not here."""
    if launcher.spec in ("", "local") or "/" in launcher.spec or launcher.spec.endswith((".yaml", ".yml")):
        return
    try:
        same = load(launcher.spec) == spec
    except SpecError:
        same = False
    if not same:
        message = f"the command names the cluster spec {launcher.spec}, which is not the one that goes with this file"
        remedy = "name that one, or give lint the other with --cluster"
        yield Finding("spec-differs", message, remedy, launcher.command_line)


def _with_placeholders(launcher: Launcher, found: list[Document]) -> Launcher:
    left: dict[str, int | None] = {}
    for document in found:
        for keys, text in texts(document.data):
            for placeholder in re.findall(_PLACEHOLDER, text):
                left.setdefault(placeholder, document.line(*keys))
    findings = [
        Finding("placeholder", f"{text} is a placeholder", "fill it in as the comment beside it says", line)
        for text, line in sorted(left.items())
    ]
    return launcher._replace(findings=[*launcher.findings, *findings])
