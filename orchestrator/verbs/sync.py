"""sync: send to MLflow, and to the trackers that the cluster spec names, what they lack of a study."""

from __future__ import annotations

import sys

from orchestrator.verbs.options import ClusterOption, StoreOption, StudyName, files_read, store_of


def sync(study: StudyName, store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """Send to MLflow what it lacks of a study."""
    from cluster.spec_file import load as load_spec
    from orchestrator.report.files import check_folder, write
    from orchestrator.report.page.data import report_of
    from orchestrator.search.optuna_dashboard import mirror as searches_to_optuna
    from orchestrator.state.stored_studies import load_study
    from orchestrator.state.study_state import StudyState
    from orchestrator.store.ledger import Ledger
    from orchestrator.store.run_folder import reconcile
    from orchestrator.tracking.address import shown, uri_of
    from orchestrator.tracking.also import check_trackers
    from orchestrator.tracking.arm_record import arm_records
    from orchestrator.tracking.mirror import sync as send
    from trainer.config import counted

    where, spec = store_of(store, cluster), load_spec(cluster)
    check_trackers(spec.other_trackers)
    loaded = load_study(study, Ledger(where.ledger))
    uri, folder = uri_of(where), where.report_dir(loaded.name)
    check_folder("the report", folder, where, files_read(study, cluster))
    print("writing the report, and sending MLflow what it lacks", file=sys.stderr)
    with where.leases.study(loaded.name):
        ledger = Ledger(where.ledger, loaded.name)
        reconcile(ledger, where)
        state = StudyState(loaded, ledger)
        report = report_of(state, where)
        sent, left = send(state, where, write(report, folder), arm_records(state, report.table), spec.other_trackers)
        lacking = searches_to_optuna(loaded, where)
    if lacking:
        print(lacking, file=sys.stderr)
    are = "is" if sent == 1 else "are"
    print(f"{counted(sent, 'run')} {are} up to date at {shown(uri)}{', others are not' if left else ''}")
    if left:
        remedy = "move the file away if it is damaged" if uri.startswith("sqlite:") else "see that the server answers"
        print(f"failed: MLflow lacks a part of this study; {remedy}, and run the same command again", file=sys.stderr)
        sys.exit(1)
