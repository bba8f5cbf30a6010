"""Check that all machines of a cluster see the same store, before a run trains on one that does not."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.store.folder import Store
from trainer.config import UserError

ANSWER_S = 120.0
"""Timeout for a machine's answer, in seconds: its first task has to start a Python process."""


def check_shared(store: Store, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Let every node read a file of the driver in the store and write one. Raises UserError where a node does not."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder = store.root / "seen" / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        (folder / "driver").write_text(folder.name, encoding="utf-8")
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
    """Raise UserError unless the store at `root` is the driver's; for machines that joined later."""
    file = Path(root) / "identity"
    if not file.is_file() or file.read_text(encoding="utf-8").strip() != identity:
        raise UserError(
            f"store {root} must be one folder for all machines, but {socket.gethostname()} sees another; mount it there"
        )


def answer_in(folder: str, name: str) -> None:
    """On a node: confirm in the store that the driver's file can be read."""
    if (Path(folder) / "driver").is_file():
        (Path(folder) / name).touch()
