"""Check that all machines of a cluster see the same store, before a run trains on one that does not."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.running.ask_nodes import ask_each
from orchestrator.store.folder import Store
from trainer.config import UserError


def check_shared(store: Store, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise UserError where a node does not see the driver's store."""
    if blind := blind_nodes(store, nodes):
        raise UserError(
            f"store {store.root} must be one folder for all machines, but {', '.join(blind)} of {len(nodes)} see "
            "another; name one that all of them mount with --store"
        )


def blind_nodes(store: Store, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Let every node read a file of the driver in the store and write one; the addresses of those that do not."""
    folder = store.root / "seen" / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        (folder / "driver").write_text(folder.name, encoding="utf-8")
        ask_each(nodes, answer_in, lambda name: (str(folder), name))
        return sorted({node["NodeManagerAddress"] for node in nodes if not (folder / node["NodeID"]).exists()})
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


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
