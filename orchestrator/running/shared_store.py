"""Whether all machines of a cluster see one store: found out before a run trains where nobody will look for it."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.store.folder import Store
from trainer.config import UserError

ANSWER_S = 120.0
"""Longest wait for a machine's answer: a first task there has to start a Python process."""


def check_shared(store: Store, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Have every node read what the driver wrote into the store, and read what each wrote. Raises UserError."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder = store.root / "seen" / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        (folder / "driver").write_text(folder.name)
        answer = ray.remote(num_cpus=0, max_retries=0)(answer_in)
        asked = {
            node["NodeID"]: answer.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(str(folder), node["NodeID"])
            for node in nodes
        }
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_S)
        blind = [node["NodeManagerAddress"] for node in nodes if not (folder / node["NodeID"]).exists()]
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    if blind:
        raise UserError(
            f"store {store.root} must be one folder for all machines, but {', '.join(sorted(set(blind)))} of "
            f"{len(nodes)} see another; name one that all of them mount with --store"
        )


def must_see(root: str, identity: str) -> None:
    """On a machine that joined later: raise UserError unless the store at `root` is the driver's."""
    file = Path(root) / "identity"
    if not file.is_file() or file.read_text().strip() != identity:
        raise UserError(
            f"store {root} must be one folder for all machines, but {socket.gethostname()} sees another; mount it there"
        )


def answer_in(folder: str, name: str) -> None:
    """On a node: say in the store that the driver's word was read there."""
    if (Path(folder) / "driver").is_file():
        (Path(folder) / name).touch()
