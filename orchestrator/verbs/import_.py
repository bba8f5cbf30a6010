"""import: copy runs that the trainer finished elsewhere into the store."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.verbs.options import ClusterOption, StoreOption, store_of

SAID = {"taken": "imported", "there": "already there", "left": "refused"}


def import_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="--out of a `fit`, or a folder of many")],
    store: StoreOption = None,
    cluster: ClusterOption = None,
    verify: Annotated[bool, typer.Option("--verify", help="evaluate the checkpoints again first")] = False,
    data_root: Annotated[Path | None, typer.Option(help="with --verify: the folder of the runs' data set")] = None,
) -> None:
    """Import runs that `fit` finished elsewhere, so that studies reuse them. Importing twice adds nothing.

    The exit code is 2 where a run was refused.
    """
    from orchestrator.store.import_runs import measure_again, runs_below, take_in
    from orchestrator.store.leases import IMPORTS
    from orchestrator.store.ledger import Ledger

    where = store_of(store, cluster)
    folders = runs_below(folder)
    measure = partial(measure_again, root=data_root, cache=where.cache) if verify else None
    counts = dict.fromkeys(SAID, 0)
    with where.leases.study(IMPORTS):
        for found in take_in(folders, where, Ledger(where.ledger, IMPORTS), measure):
            counts[found.state] += 1
            print(f"{SAID[found.state]}: {found.folder}: {found.about}")
    print(", ".join(f"{count} {SAID[state]}" for state, count in counts.items()))
    if counts["left"]:
        raise typer.Exit(2)
