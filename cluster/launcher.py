"""Launcher files (`ray up`, KubeRay): whether the runs of a cluster spec fit on the machines that they start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cluster.kuberay import kuberay
from cluster.launcher_file import Document, Launcher, documents, table, texts
from cluster.lint import Finding
from cluster.ray_up import ray_up
from cluster.spec import ClusterSpec, Machine, SpecError, concurrency_on, load
from trainer.config import UserError, read_text

PREFIXES = ("ray-up-", "kubectl-")
_PLACEHOLDER = re.compile(r"\b(?:ami|fs)-0{17}|[\w.-]*example\.com[\w./:-]*|\bfill-in\b")


def read(path: Path) -> Launcher:
    """Parse a launcher file. Raises SpecError unless it is for `ray up`, or a RayJob or RayCluster."""
    found = documents(path)
    for document in found:
        data = table(document.data)
        if "cluster_name" in data:
            return _with_placeholders(ray_up(document), found)
        if data.get("kind") in ("RayJob", "RayCluster"):
            return _with_placeholders(kuberay(document, found), found)
    raise SpecError(f"{path} is no launcher file: expected `cluster_name:` (ray up) or `kind: RayJob` (kubectl apply)")


def is_launcher(path: Path) -> bool:
    """Whether a file is for `ray up` or `kubectl apply` instead of a cluster spec."""
    if not path.exists():  # the name of a packaged spec
        return False
    try:
        return bool(re.search(r"^(cluster_name|apiVersion|available_node_types):", read_text(path), re.MULTILINE))
    except (UserError, OSError):
        return False  # the reader of specs says why


def spec_beside(path: Path) -> str:
    """The name of a launcher file's cluster spec: `aws` for `ray-up-aws.yaml`."""
    name = path.stem
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def launchers_beside(path: Path) -> list[Path]:
    """The launcher files of a cluster spec: `ray-up-aws.yaml` beside `aws.yaml`."""
    return [file for prefix in PREFIXES if (file := path.with_name(f"{prefix}{path.stem}.yaml")).is_file()]


def lint_launcher(launcher: Launcher, spec: ClusterSpec) -> list[Finding]:
    """Problems that would hang a study or waste money when `spec` runs on the machines of `launcher`."""
    return [
        *launcher.findings,
        *fits(launcher, spec),
        *_reaches_the_store(launcher, spec),
        *_other_spec(launcher, spec),
    ]


def fits(launcher: Launcher, spec: ClusterSpec) -> Iterator[Finding]:
    """Whether the runs fit on the launcher's machines, and its numbers are those of the spec."""
    machines = [kind.machine for kind in launcher.types for _ in range(kind.most)]
    try:
        concurrency_on(spec, machines)
    except SpecError as error:
        message, _, remedy = str(error).partition("; ")
        yield Finding("cannot-fit", message, remedy)
    sizes = {kind.machine for kind in launcher.types}
    stated = Machine(spec.cpus_per_machine or 0, spec.gpus_per_machine)
    if spec.cpus_per_machine is not None and stated not in sizes:
        there = ", ".join(f"{size.cpus:g} CPUs and {size.gpus:g} GPUs" for size in sorted(sizes))
        message = f"cpus_per_machine is {stated.cpus:g} and gpus_per_machine {stated.gpus:g}, the launcher has {there}"
        yield Finding("machine-differs", message, "set them to a machine type of the launcher")
    for name, limit, most in (
        ("max_cpus", spec.max_cpus, sum(machine.cpus for machine in machines)),
        ("max_gpus", spec.max_gpus, sum(machine.gpus for machine in machines)),
    ):
        if limit is not None and limit != most:
            yield Finding(
                "limits-differ", f"{name} is {limit:g} but the launcher starts up to {most:g}", f"set {name}: {most:g}"
            )


def _reaches_the_store(launcher: Launcher, spec: ClusterSpec) -> Iterator[Finding]:
    for name, folder in [("store", spec.store), *((f"data_roots.{k}", v) for k, v in spec.data_roots.items())]:
        if folder and not any(Path(folder).is_relative_to(mount) for mount in launcher.mounts):
            mounts = ", ".join(launcher.mounts) or "nothing"
            yield Finding("not-mounted", f"{name} is {folder} but machines share {mounts}", "mount it on every machine")

    for mount in launcher.read_only:
        if spec.store and Path(spec.store).is_relative_to(mount):
            message = f"store is {spec.store}, and {mount} is mounted read-only"
            yield Finding("read-only", message, "remove readOnly from the mount and its volume")


def _other_spec(launcher: Launcher, spec: ClusterSpec) -> Iterator[Finding]:
    """A command that names another spec than the one that goes with the file. Files of the image are not here."""
    if launcher.spec in ("", "local") or "/" in launcher.spec or launcher.spec.endswith((".yaml", ".yml")):
        return
    try:
        same = load(launcher.spec) == spec
    except SpecError:
        same = False
    if not same:
        message = f"entrypoint names the cluster spec {launcher.spec}, which is not the one that goes with this file"
        yield Finding("spec-differs", message, "name that one, or give lint the other with --cluster")


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
