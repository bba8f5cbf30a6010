"""import: copy runs that the trainer finished elsewhere into the store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.verbs.options import ClusterOption, StoreOption, store_of

SAID = {"taken": "imported", "there": "already there", "left": "refused"}


def import_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="--out of a `fit`, or a folder of many")],
    store: StoreOption = None,
    cluster: ClusterOption = None,
) -> None:
    """Import runs that `fit` finished elsewhere, so that studies reuse them. Importing twice adds nothing."""
    from orchestrator.store.import_runs import take_in
    from orchestrator.store.ledger import Ledger

    where = store_of(store, cluster)
    counts = dict.fromkeys(SAID, 0)
    with where.lease():
        for found in take_in(folder, where, Ledger(where.ledger)):
            counts[found.state] += 1
            print(f"{SAID[found.state]}: {found.folder}: {found.about}")
    print(", ".join(f"{count} {SAID[state]}" for state, count in counts.items()))
