"""The mirror: a study's runs sent to MLflow in the background, from the folders that hold them."""

from __future__ import annotations

import yaml

from ablations.render import to_markdown
from ablations.study import Study
from ablations.table import Table
from orchestrator.jobs import Job
from orchestrator.ledger import Ledger, LedgerRun
from orchestrator.record import RunInfo
from orchestrator.report import to_csv
from orchestrator.results import of_study
from orchestrator.sender import Sender
from orchestrator.store import Store
from orchestrator.tracking import Tracker

FLUSH_S = 120.0
"""Longest wait, at the end of a study, for tracking to catch up; `transkd sync` sends the rest."""


class Mirror:
    """Keeps tracking up to date with one study. Nothing here raises, and nothing waits but `close`."""

    def __init__(self, study: str, store: Store) -> None:
        self.study = study
        self.ledger = Ledger(store.ledger)
        self.tracker = Tracker(store.mlflow_uri, store.artifacts, store.identity)
        self.sender = Sender()
        self.sender.send("reconcile", self.tracker.reconcile)
        self.sender.send("study", lambda: self.tracker.study(study))

    def job(self, job: Job, status: str, reason: str = "") -> None:
        """Bring one run up to date: running, finished, failed or stopped."""
        attempts = self.ledger.outcomes()[job.run_id].attempts
        info = job.info(reason, attempts)
        self.sender.send(job.run_id, lambda: self.tracker.mirror(info, job.place.out_dir, status))

    def close(self, table: Table) -> None:
        """Put the table on the study's parent, end it, and wait for what is on its way."""
        self.sender.send("table", lambda: self.tracker.table(self.study, to_markdown(table), to_csv(table)))
        self.sender.send("close", lambda: self.tracker.close(self.study))
        # Nothing trains any more: what still stands as RUNNING was interrupted.
        self.sender.send("interrupted", self.tracker.reconcile)
        self.sender.flush(FLUSH_S)


def sync(study: Study, store: Store, table: Table) -> tuple[int, int]:
    """Send what tracking lacks of a study: (runs up to date, runs that are not). Twice adds nothing."""
    tracker = Tracker(store.mlflow_uri, store.artifacts, store.identity)
    tracker.reconcile()
    tracker.study(study.name)
    ended = [run for run in of_study(study, Ledger(store.ledger)).values() if run.status != "running"]
    sent = [tracker.mirror(_info(study, run, store), store.run_dir(run.run_id), run.status) for run in ended]
    tracker.table(study.name, to_markdown(table), to_csv(table))
    tracker.close(study.name)
    return sum(sent), len(sent) - sum(sent)


def _info(study: Study, run: LedgerRun, store: Store) -> RunInfo:
    place = next(member for member in run.members if member.study == study.name)
    file = store.run_dir(run.run_id) / "config.yaml"
    return RunInfo(
        study=study.name,
        arm=place.arm,
        seed=place.seed,
        role=place.role,
        key=run.key,
        run_id=run.run_id,
        config=yaml.safe_load(file.read_text()) if file.exists() else {},
        attempts=run.attempts,
        reason=run.reason,
    )
