"""repair: keep a copy of each damaged journal, and go on with its whole lines."""

from __future__ import annotations

from orchestrator.verbs.options import ClusterOption, StoreOption, store_of
from trainer.config import counted

NAMED = 10
"""At most so many damaged lines are named."""


def repair(store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """Leave the damaged lines out of the store's journals, after keeping copies. The next `transkd run` reads a run
    whose end is lost from its folder."""
    from orchestrator.store.fold import journals
    from orchestrator.store.repair import repair as leave_out
    from trainer.config import UserError

    where = store_of(store, cluster)
    if where.shared is not None:
        raise UserError(
            f"repair needs a store in a folder but got {where.name}, whose journals are never changed; `transkd store "
            f"copy {where.name} FOLDER`, repair that, and copy it to an empty address"
        )
    there = [path for path in journals(where.ledger) if path.is_file()]
    if not there:
        raise UserError(f"no such ledger: {where.ledger}; give another --store")
    for path in there:
        with where.leases.whole() if path == where.ledger else where.leases.study(path.stem):
            left_out, lines, copy = leave_out(path)
        if not left_out:
            print(f"{path}: of {counted(lines, 'line')} none is damaged")
            continue
        named = ", ".join(map(str, left_out[:NAMED])) + (", ..." if len(left_out) > NAMED else "")
        print(f"{path}: of {counted(lines, 'line')} {len(left_out)} damaged and left out: {named}")
        print(f"the file as it was: {copy}")
