"""Machines that take no further run of this driver: they lack the store or the data, or a GPU of theirs has failed.

The list is kept by Ray's head: a machine that lacks the store has no other way to tell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.experimental.internal_kv import _internal_kv_put, internal_kv_get_gcs_client

from orchestrator.running import group_size

NAMESPACE = b"transkd-avoided"


class Avoided(NamedTuple):
    """Why a machine takes no run: one line for people that names it. Where it `lacks` the store or the data no run can
    train on it; where only a GPU has failed a run may, if no other machine has room."""

    why: str
    lacks: bool


def avoid(launch: str, why: str, *, lacks: bool) -> None:
    """Give no further run of this launch (`orchestrator/prepare/jobs.py:LAUNCH`) to this process's machine."""
    key = f"{launch}/{ray.get_runtime_context().get_node_id()}"
    _internal_kv_put(key, json.dumps(Avoided(why, lacks)), namespace=NAMESPACE)


def avoided(launch: str, timeout_s: float | None = None) -> dict[str, Avoided]:
    """Ray's id of a machine -> why it takes no run of this launch. Raises RayError where the head does not answer."""
    head = internal_kv_get_gcs_client()
    found: dict[str, Avoided] = {}
    for key in head.internal_kv_keys(f"{launch}/".encode(), NAMESPACE, timeout=timeout_s):
        if (value := head.internal_kv_get(key, NAMESPACE, timeout=timeout_s)) is not None:
            found[key.decode().partition("/")[2]] = Avoided(*json.loads(value))
    return found


def machines_for(job: Mapping[str, Any]) -> dict[str, str]:
    """Ray's label selector for the machines that may train a run (`Job.settings`); empty where all may."""
    found = avoided(job["launch"])
    return selector(found, ray.nodes(), job) if found else {}


def selector(
    avoided: Mapping[str, Avoided], nodes: Sequence[Mapping[str, Any]], job: Mapping[str, Any]
) -> dict[str, str]:
    """The same as a function of the machines that are there."""
    out = set(avoided)
    if places(nodes, out, job["resources"]) < job["group_sizes"][0]:
        out = {node for node, said in avoided.items() if said.lacks}
    return {"ray.io/node-id": f"!in({','.join(sorted(out))})"} if out else {}


def places(nodes: Sequence[Mapping[str, Any]], out: set[str], resources: Mapping[str, float]) -> int:
    """The workers for which there is room, now or later, on the machines that are not `out`; one needs `resources`."""
    there = [node["Resources"] for node in nodes if node["Alive"] and node["NodeID"] not in out]
    return group_size.places(there, resources)
