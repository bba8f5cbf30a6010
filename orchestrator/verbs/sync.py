"""sync: send MLflow what it lacks of a study."""

from __future__ import annotations

import sys

from orchestrator.verbs.options import ClusterOption, StoreOption, StudyName, store_of


def sync(study: StudyName, store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """Send to MLflow what it lacks of a study; twice adds nothing."""
    from ablations.study import load
    from orchestrator.mirror import sync as send
    from orchestrator.results import table

    loaded, where = load(study), store_of(store, cluster)
    with where.lease():
        sent, failed = send(loaded, where, table(loaded, where))
    print(f"{sent} runs are up to date at {where.mlflow_uri}" + (f", {failed} are not" if failed else ""))
    if failed:
        sys.exit(1)
