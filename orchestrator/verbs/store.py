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
    from orchestrator.store.objects.copy_store import copy_store
    from orchestrator.store.objects.working_copy import opened

    places = named(source), named(target)
    if places[0] == places[1]:
        raise UserError(f"FROM and TO must differ but both are {places[0]}")
    if not _holds_a_store(places[0]):
        raise UserError(f"no store is at {places[0]}; correct the folder or address")
    with ExitStack() as held:
        for place in places:
            root = opened(place) if isinstance(place, str) else place
            held.enter_context(Store(root).leases.whole())
        runs = copy_store(*places, lambda text: typer.echo(text, err=True))
    print(f"{counted(runs, 'run')} of {places[0]} {'is' if runs == 1 else 'are'} at {places[1]}")


def _holds_a_store(place: Path | str) -> bool:
    """Whether a folder, or an address, has a journal."""
    from orchestrator.store.fold import journals
    from orchestrator.store.journal import JOURNALS
    from orchestrator.store.objects.address import connect

    if isinstance(place, str):
        return bool(connect(place).list(JOURNALS))
    return any(path.is_file() for path in journals(place / "ledger.jsonl"))
