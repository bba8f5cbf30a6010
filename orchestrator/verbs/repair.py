"""repair: keep a copy of a damaged ledger, and go on with its whole lines."""

from __future__ import annotations

from orchestrator.verbs.options import ClusterOption, StoreOption, store_of

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
        print(f"{where.ledger}: all {lines} lines are whole")
        return
    named = ", ".join(map(str, left_out[:NAMED])) + (", ..." if len(left_out) > NAMED else "")
    print(f"{where.ledger}: {len(left_out)} of {lines} lines are damaged and were left out: {named}")
    print(f"the file as it was: {copy}")
