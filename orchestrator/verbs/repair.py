"""repair: keep a copy of a damaged ledger, and go on with its whole lines."""

from __future__ import annotations

from orchestrator.verbs.options import ClusterOption, StoreOption, store_of
from trainer.config import counted

NAMED = 10
"""At most so many damaged lines are named."""


def repair(store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """Leave the damaged lines out of the store's ledger, after keeping a copy. The next `transkd run` reads a run whose
    end is lost from its folder."""
    from orchestrator.store.repair import repair as leave_out
    from trainer.config import UserError

    where = store_of(store, cluster)
    if not where.ledger.is_file():
        raise UserError(f"no such ledger: {where.ledger}; give another --store")
    with where.lease():
        left_out, lines, copy = leave_out(where.ledger)
    if not left_out:
        print(f"{where.ledger}: of {counted(lines, 'line')} none is damaged")
        return
    named = ", ".join(map(str, left_out[:NAMED])) + (", ..." if len(left_out) > NAMED else "")
    print(f"{where.ledger}: of {counted(lines, 'line')} {len(left_out)} damaged and left out: {named}")
    print(f"the file as it was: {copy}")
