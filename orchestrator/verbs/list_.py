"""list: name the packaged studies and those of the store, with their state."""

from __future__ import annotations

from orchestrator.verbs.options import ClusterOption, StoreOption, store_of
from orchestrator.verbs.status import in_short


def list_(store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """List the packaged studies and those of the store, and how many runs of each have finished."""
    from ablations.study.schema import packaged
    from orchestrator.state.stored_studies import stored_studies
    from orchestrator.store.ledger import Ledger

    where = store_of(store, cluster)
    stored = stored_studies(Ledger(where.ledger))
    names = [*packaged(), *(name for name in sorted(stored) if name not in packaged())]
    width, drivers = max(map(len, names)), where.leases.drivers()
    for name in names:
        kind = "packaged" if name in packaged() else "in the store"
        print(
            f"{name:{width}}  {kind:12}  {in_short(name, where, drivers) if name in stored else 'not started'}".rstrip()
        )
