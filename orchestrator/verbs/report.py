"""report: a study's table as the ledger stands now."""

from __future__ import annotations

from orchestrator.verbs.options import ClusterOption, StoreOption, StudyName, store_of


def report(study: StudyName, store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """Print a study's table as the ledger stands now."""
    from ablations.study import load
    from orchestrator.report import show, write
    from orchestrator.results import table

    loaded, where = load(study), store_of(store, cluster)
    result = table(loaded, where)
    if where.ledger.exists():
        write(result, where.root / "studies" / loaded.name)
    show(result)
