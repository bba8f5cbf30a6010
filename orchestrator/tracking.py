"""Tracking: an MLflow mirror of the store, the one file that imports mlflow. It may be down or late and costs nothing.

A study is an experiment `transkd/<study>` holding one parent run; each run of the study is a child of it, found by
its tags before it is made. Everything here can be said again: a point, a parameter or a file is sent once.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.record import Record, RunInfo, flatten

LOG = logging.getLogger(__name__)

STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
"""The ledger's words in MLflow's. A run that early stopping ended has the tag `transkd.status: stopped`."""
MARKER = "epoch"
"""A metric of every epoch: where its history has a step, that epoch's batch has arrived whole."""
BATCH = 1000
PARAM_BATCH = 100
PARAM_LENGTH = 6000
TAG_LENGTH = 5000
PAUSE_S = 60.0
"""After a failed call the server is left alone for so long, so that an outage does not cost a timeout a call."""

OURS = "name LIKE 'transkd/%'"
"""Picks our experiments on a server that others use too."""

QUIET = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's own would hold the driver for minutes when the server is gone.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


@dataclass
class _Mirrored:
    """What the server is known to hold of one run."""

    mlflow_id: str
    status: str
    tags: dict[str, str]
    params: set[str]
    epochs: set[int] | None = None
    """None until asked."""


@dataclass
class _Study:
    experiment: str
    parent: str
    runs: dict[str, _Mirrored] = field(default_factory=dict)
    """By our run id."""


class Tracker:
    """Mirrors runs to one MLflow server or database. No method raises: a failure is logged once and returns False.

    `artifacts` is where files go beside a bare database (a server decides for itself); `owner` names the store, so
    that stores sharing a server leave each other's runs alone.
    """

    def __init__(self, uri: str, artifacts: Path, owner: str, pause_s: float = PAUSE_S) -> None:
        self.uri = uri
        self._artifacts = artifacts
        self._owner = owner
        self._pause_s = pause_s
        self._paused_until = 0.0
        self._warned: set[str] = set()
        self._client: Any = None
        self._studies: dict[str, _Study] = {}

    def prepare(self) -> bool:
        """Reach the server once, in the driver: a fresh database is migrated here (2 s) and never by workers."""
        return self._attempt(lambda: None)

    def study(self, name: str, plan: str = "", tags: Mapping[str, str] | None = None) -> bool:
        """Open the study's parent run, or find it again; `plan` becomes its artifact plan.txt."""

        def open_parent() -> None:
            study = self._study(name)
            self._client.update_run(study.parent, status="RUNNING")
            for tag, value in (tags or {}).items():
                self._client.set_tag(study.parent, tag, value)
            if plan:
                self._client.log_text(study.parent, plan, "plan.txt")

        return self._attempt(open_parent)

    def mirror(self, run: RunInfo, run_dir: Path, status: str) -> bool:
        """Bring MLflow up to date with a run's folder; `status` is running, finished, failed or stopped.

        Called after every epoch, at the end, and again by `sync`: what the server holds already is not sent again.
        """
        return self._attempt(lambda: self._mirror(run, run_dir, status))

    def table(self, study: str, markdown: str, csv: str) -> bool:
        """Put the study's table on its parent run, as table.md and table.csv."""

        def log() -> None:
            parent = self._study(study).parent
            self._client.log_text(parent, markdown, "table.md")
            self._client.log_text(parent, csv, "table.csv")

        return self._attempt(log)

    def close(self, study: str, status: str = "finished") -> bool:
        """Give the study's parent run its terminal status."""
        return self._attempt(lambda: self._client.set_terminated(self._study(study).parent, STATUS[status]))

    def reconcile(self, running: Collection[str] = ()) -> bool:
        """Mark as killed what a dead driver of this store left RUNNING, but for the run ids in `running`.

        Call it under the store's lease, before studies are opened. A resumed run opens its MLflow run again.
        """

        def kill() -> None:
            for run in self._search("attributes.status = 'RUNNING'"):
                if run.data.tags.get("transkd.run_id") not in running:
                    self._client.set_tag(run.info.run_id, "transkd.status", "interrupted")
                    self._client.set_terminated(run.info.run_id, "KILLED")
            self._studies.clear()

        return self._attempt(kill)

    def _attempt(self, action: Callable[[], Any]) -> bool:
        """Do it, or log why not: the one place where what MLflow throws ends."""
        if time.monotonic() < self._paused_until:
            return False
        try:
            self._client = self._client or _connect(self.uri)
            action()
        except Exception as error:
            # What has arrived is unknown now: the server is asked again next time.
            self._studies.clear()
            self._warn(error, answers=self._answers())
            return False
        return True

    def _answers(self) -> bool:
        """Whether the server is there: if so, what failed was about one run and the others go on."""
        try:
            self._client = self._client or _connect(self.uri)
            self._client.search_experiments(max_results=1)
        except Exception:
            self._paused_until = time.monotonic() + self._pause_s
            return False
        return True

    def _warn(self, error: Exception, answers: bool) -> None:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        # The words for an outage hold addresses and differ each time.
        said = reason if answers else "no answer"
        if said not in self._warned:
            self._warned.add(said)
            LOG.warning("tracking at %s failed; runs go on, `transkd sync` sends it later: %s", self.uri, reason)

    def _search(self, condition: str) -> Iterator[Any]:
        """This store's runs that meet a condition, in all studies."""
        experiments = [e.experiment_id for e in _pages(self._client.search_experiments, filter_string=OURS)]
        where = f"tags.`transkd.store` = '{self._owner}' and {condition}"
        # The server takes a bounded list of experiments in one question.
        for start in range(0, len(experiments), 100):
            yield from _pages(self._client.search_runs, experiments[start : start + 100], filter_string=where)

    def _study(self, name: str) -> _Study:
        """The study's experiment and parent run, made where absent, with what is known of its children."""
        if name in self._studies:
            return self._studies[name]
        title = f"transkd/{name}"
        found = self._client.get_experiment_by_name(title)
        if found is None:
            location = None if self.uri.startswith(("http:", "https:")) else str(self._artifacts / name)
            experiment = self._client.create_experiment(title, artifact_location=location)
        else:
            experiment = found.experiment_id
        parent = ""
        runs = {}
        where = f"tags.`transkd.store` = '{self._owner}'"
        for run in _pages(self._client.search_runs, [experiment], filter_string=where):
            tags = run.data.tags
            if tags.get("transkd.role") == "study":
                parent = run.info.run_id
            else:
                runs[tags["transkd.run_id"]] = _Mirrored(run.info.run_id, run.info.status, tags, set(run.data.params))
        if not parent:
            tags = {"mlflow.runName": name, "transkd.role": "study", "transkd.store": self._owner}
            parent = self._client.create_run(experiment, tags=tags).info.run_id
        self._studies[name] = _Study(experiment, parent, runs)
        return self._studies[name]

    def _mirror(self, run: RunInfo, run_dir: Path, status: str) -> None:
        record = Record(run_dir)
        content = record.content(status, run.attempts, run.reason)
        study = self._study(run.study)
        if run.run_id in study.runs and study.runs[run.run_id].tags.get("transkd.mirrored") == content:
            return
        there = self._open(study, run, status, record.not_finite)
        self._send_params(there, flatten(run.config))
        self._send_epochs(there, record)
        if STATUS[status] != "RUNNING":
            self._send_summary(there, record)
            self._send_files(there, record)
            self._client.set_terminated(there.mlflow_id, STATUS[status])
            there.status = STATUS[status]
            # Last, for it says that all of the above has arrived.
            self._tag(there, {"transkd.mirrored": content})

    def _open(self, study: _Study, run: RunInfo, status: str, not_finite: str) -> _Mirrored:
        """The MLflow run of this run, made where absent, reopened where it had ended, with its tags."""
        tags = {
            "mlflow.parentRunId": study.parent,
            "transkd.store": self._owner,
            "transkd.not_finite": not_finite,
            **run.tags(status),
        }
        if run.run_id not in study.runs:
            short = {name: value[:TAG_LENGTH] for name, value in tags.items()}
            made = self._client.create_run(study.experiment, tags=short)
            study.runs[run.run_id] = _Mirrored(made.info.run_id, "RUNNING", short, set(), set())
        there = study.runs[run.run_id]
        self._tag(there, tags)
        if STATUS[status] == "RUNNING" and there.status != "RUNNING":
            self._client.update_run(there.mlflow_id, status="RUNNING")
            there.status = "RUNNING"
        return there

    def _send_params(self, there: _Mirrored, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        missing = [Param(name, text[:PARAM_LENGTH]) for name, text in params.items() if name not in there.params]
        for start in range(0, len(missing), PARAM_BATCH):
            self._client.log_batch(there.mlflow_id, params=missing[start : start + PARAM_BATCH])
        there.params.update(params)

    def _send_epochs(self, there: _Mirrored, record: Record) -> None:
        """Send the epochs that have not arrived. One request is one transaction, and holds whole epochs."""
        if there.epochs is None:
            there.epochs = {m.step for m in self._client.get_metric_history(there.mlflow_id, MARKER)}
        batch: list[Any] = []
        for epoch in record.epochs:
            step = int(epoch[MARKER])
            if step in there.epochs:
                continue
            points = _metrics(record.points(epoch), step)
            if len(batch) + len(points) > BATCH:
                self._client.log_batch(there.mlflow_id, metrics=batch)
                batch = []
            batch += points
            # Were sending to fail, all that is known of the server is forgotten, this too.
            there.epochs.add(step)
        if batch:
            self._client.log_batch(there.mlflow_id, metrics=batch)

    def _send_summary(self, there: _Mirrored, record: Record) -> None:
        held = self._client.get_run(there.mlflow_id).data.metrics
        missing = {name: value for name, value in record.summary.items() if name not in held}
        if missing:
            self._client.log_batch(there.mlflow_id, metrics=_metrics(missing, 0))

    def _send_files(self, there: _Mirrored, record: Record) -> None:
        """Files of the run that are absent on the server or of another size."""
        held = {file.path: file.file_size for file in self._client.list_artifacts(there.mlflow_id)}
        for path in record.files:
            if held.get(path.name) != path.stat().st_size:
                self._client.log_artifact(there.mlflow_id, str(path))
        if record.per_class:
            self._client.log_text(there.mlflow_id, json.dumps(record.per_class, indent=1), "per_class_iou.json")

    def _tag(self, there: _Mirrored, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        changed = {name: value for name, text in tags.items() if there.tags.get(name) != (value := text[:TAG_LENGTH])}
        if changed:
            self._client.log_batch(there.mlflow_id, tags=[RunTag(name, value) for name, value in changed.items()])
            there.tags.update(changed)


def _metrics(points: Mapping[str, float], step: int) -> list[Any]:
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    return [Metric(name, value, now_ms, step) for name, value in points.items()]


def _connect(uri: str) -> Any:
    """A client whose first question is answered: the tables exist, the server is there. MLflow is kept quiet."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient

    # urllib3 counts its retries aloud; the outage itself is told once, by the tracker.
    for logger in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    client = MlflowClient(tracking_uri=uri)
    client.search_experiments(max_results=1)
    return client


def _pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(*arguments, **options, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
