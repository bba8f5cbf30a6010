"""Machines that take no further run of this driver: they lack the store or the data, or a GPU of theirs has failed.

The list is kept by Ray's head: a machine that lacks the store has no other way to tell. One with a failed GPU is on it
until that GPU is held (`failed_gpus.py`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.experimental.internal_kv import _internal_kv_put, internal_kv_get_gcs_client

from orchestrator.running import group_size

NAMESPACE = b"transkd-avoided-2"
"""Drivers that write otherwise need another name: versions may meet on a cluster."""


class Avoided(NamedTuple):
    """Why a machine takes no run: one line for people that names it. Where it `lacks` the store or the data no run can
    train on it; where only a GPU has failed a run may, if no other machine has room."""

    why: str
    lacks: bool
    gpus: tuple[str, ...] = ()
    """Ray's ids of the GPUs of the process that failed."""
    times: int = 1
    """How often these GPUs have failed."""
    shut: bool = False
    """Whether no run of this launch may use these GPUs: the driver holds them, or is about to."""
    held: bool = False
    """Whether Ray gives them to nobody, so that the machine takes runs again."""


def avoid(launch: str, found: Avoided, node: str | None = None) -> None:
    """List a machine, by default that of this process, or GPUs of it, for a launch
    (`orchestrator/prepare/jobs.py:LAUNCH`); what was listed of them before is replaced."""
    key = f"{launch}/{node or ray.get_runtime_context().get_node_id()}/{_which(found)}"
    _internal_kv_put(key, json.dumps(found), namespace=NAMESPACE)


def _which(found: Avoided) -> str:
    return "" if found.lacks else "+".join(found.gpus) or "its GPU"


Listed = Mapping[tuple[str, str], Avoided]
"""Ray's id of a machine, and "" where that lacks something, or else its GPUs -> what is known of it."""


def listed(launch: str, timeout_s: float | None = None) -> dict[tuple[str, str], Avoided]:
    """What is listed for a launch. Raises RayError where the head does not answer."""
    return {(node, which): said for (_, node, which), said in _read(f"{launch}/", timeout_s).items()}


def held_by(launches: Collection[str], timeout_s: float | None = None) -> dict[str, set[str]]:
    """Ray's id of a machine -> its GPUs that these launches hold."""
    entries = _read("", timeout_s) if launches else {}
    return _held((node, said) for (launch, node, _), said in entries.items() if launch in launches)


def _held(entries: Iterable[tuple[str, Avoided]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for node, said in entries:
        if said.held:
            found.setdefault(node, set()).update(said.gpus)
    return found


def _read(prefix: str, timeout_s: float | None) -> dict[tuple[str, str, str], Avoided]:
    head = internal_kv_get_gcs_client()
    found: dict[tuple[str, str, str], Avoided] = {}
    for key in head.internal_kv_keys(prefix.encode(), NAMESPACE, timeout=timeout_s):
        if (value := head.internal_kv_get(key, NAMESPACE, timeout=timeout_s)) is not None:
            said = Avoided(*json.loads(value))
            launch, node, which = key.decode().split("/", 2)
            found[launch, node, which] = said._replace(gpus=tuple(said.gpus))
    return found


def machines_of(found: Listed) -> dict[str, Avoided]:
    """Ray's id of a machine -> why it takes no run: what it lacks before a GPU of it that has failed."""
    closed = [(node, said) for (node, _), said in found.items() if not said.held]
    return dict(sorted(closed, key=lambda each: each[1].lacks))


def machines_for(job: Mapping[str, Any]) -> dict[str, str]:
    """Ray's label selector for the machines that may train a run (`Job.settings`); empty where all may."""
    found = listed(job["launch"])
    held = _held((node, said) for (node, _), said in found.items())
    return selector(machines_of(found), without(held, ray.nodes()), job) if found else {}


def without(gpus: Mapping[str, Collection[str]], nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Ray's machines as if they had not these of their GPUs."""
    return [
        {**node, "Resources": {**node["Resources"], "GPU": node["Resources"].get("GPU", 0) - len(gone)}}
        if (gone := gpus.get(node["NodeID"]))
        else dict(node)
        for node in nodes
    ]


def selector(
    avoided: Mapping[str, Avoided], nodes: Sequence[Mapping[str, Any]], job: Mapping[str, Any]
) -> dict[str, str]:
    """`machines_for` as a function of the machines that take no run and of those that are there."""
    out = set(avoided)
    if places(nodes, out, job["resources"]) < job["group_sizes"][0]:
        out = {node for node, said in avoided.items() if said.lacks}
    return {"ray.io/node-id": f"!in({','.join(sorted(out))})"} if out else {}


def places(nodes: Sequence[Mapping[str, Any]], out: set[str], resources: Mapping[str, float]) -> int:
    """The workers for which there is room, now or later, on the machines that are not `out`; one needs `resources`."""
    there = [node["Resources"] for node in nodes if node["Alive"] and node["NodeID"] not in out]
    return group_size.places(there, resources)
