"""Check that the machines of a cluster are alike in what runs need, once a day, before a run trains on one of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster.spec import ClusterSpec, variants
from orchestrator.prepare.checks import PROBLEM, Line, cluster, requirements
from orchestrator.prepare.machine_facts import facts, version
from orchestrator.running.machines.ask_nodes import ask_each
from orchestrator.store.folder import Store
from trainer.config import UserError, digest
from trainer.files.atomic import replacing, whole_json

DAY_S = 24 * 3600.0
"""For so long a machine is not asked again, in seconds."""
HEAD = "node:__internal_head__"
"""Ray's own resource of the head."""


def check_alike(
    spec: ClusterSpec, store: Store, nodes: Sequence[Mapping[str, Any]], say: Callable[[str], None]
) -> None:
    """Raise UserError where a machine lacks a version, the data or a port that the driver's has; `say` is given what is
    no reason to stop. Machines that were alike within a day are not asked."""
    packages = [one.name for one in requirements() if one.name != "Python"]
    known = store.cache / "machines.json"
    about = digest([{name: version(name) for name in packages}, spec.data_roots])
    now = time.time()
    alike = {
        name: asked_s
        for name, asked_s in (whole_json(known) or {}).items()
        if isinstance(asked_s, int | float) and 0 <= now - asked_s < DAY_S
    }
    new = [node for node in nodes if f"{node['NodeID']} {about}" not in alike]
    if not new:
        return
    say("comparing the machines")
    lines = differences(spec, packages, [], new)
    problems = [line for line in lines if line.state == PROBLEM]
    for line in lines:
        if line not in problems and line.remedy:
            say(f"{line.what}: {line.found}; {line.remedy}")
    if problems:
        more = f", and {len(problems) - 1} more, which transkd doctor lists" if len(problems) > 1 else ""
        raise UserError(f"{problems[0].what}: {problems[0].found}{more}; {problems[0].remedy}")
    known.parent.mkdir(parents=True, exist_ok=True)
    with replacing(known) as temporary:
        asked = alike | {f"{node['NodeID']} {about}": now for node in new}
        temporary.write_text(json.dumps(asked), encoding="utf-8")


def differences(
    spec: ClusterSpec, packages: Sequence[str], folders: Sequence[str], nodes: Sequence[Mapping[str, Any]]
) -> list[Line]:
    """Each machine beside the driver's, a line for each difference. `folders`: those whose disks are looked at."""
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
    ports = _head_ports(spec)
    driver = facts(packages, folders, spec.data_roots)
    asked_s = time.time()
    found, silent = ask_each(nodes, facts, lambda _: (packages, folders, spec.data_roots, ports))
    return cluster(
        driver,
        {addresses[name]: node for name, node in found.items()},
        {addresses[name]: why for name, why in silent.items()},
        (asked_s, time.time()),
        spec,
    )


def _head_ports(spec: ClusterSpec) -> dict[str, str]:
    """What listens on the head and other machines need -> HOST:PORT. Through its dashboard, which a head shows to
    itself alone unless told otherwise, Ray Train frees what the workers of a stopped run held."""
    import ray

    found = {"GCS": ray.get_runtime_context().gcs_address}
    groups = any(each.most_workers > 1 for each in variants(spec).values())
    if groups and (dashboard := ray._private.worker.get_dashboard_url()):
        found["dashboard"] = dashboard
    for node in ray.nodes():
        if HEAD in node["Resources"]:
            found["raylet"] = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
            found["object manager"] = f"{node['NodeManagerAddress']}:{node['ObjectManagerPort']}"
    return found
