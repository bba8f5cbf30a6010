"""store: copy a store to another place."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from trainer.config import UserError, counted

app = typer.Typer(no_args_is_help=True, help="Stores of ledger, runs and reports.")


@app.command("copy")
def copy(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="folder or address of a store")],
    target: Annotated[Path, typer.Argument(metavar="TO", help="an empty folder or address, or an earlier copy")],
) -> None:
    """Copy a store between folders and addresses: ledger, runs and reports, each checked by its checksum. Run again,
    it goes on where it stopped."""
    from orchestrator.store.folder import Store, named
    from orchestrator.store.journal import JOURNALS
    from orchestrator.store.objects.address import connect
    from orchestrator.store.objects.copy_store import copy_store
    from orchestrator.store.objects.working_copy import opened

    places = named(source), named(target)
    if places[0] == places[1]:
        raise UserError(f"FROM and TO must differ but both are {places[0]}")
    if isinstance(places[0], Path) and not places[0].is_dir():
        raise UserError(f"no such store: {places[0]}")
    if isinstance(places[0], str) and not connect(places[0]).list(JOURNALS):
        raise UserError(f"no store is at {places[0]}; correct the address")
    with ExitStack() as held:
        for place in places:
            root = opened(place) if isinstance(place, str) else place
            held.enter_context(Store(root).leases.whole())
        runs = copy_store(*places, lambda text: typer.echo(text, err=True))
    print(f"{counted(runs, 'run')} of {places[0]} {'is' if runs == 1 else 'are'} at {places[1]}")
