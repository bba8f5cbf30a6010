"""The calls to MLflow, in batches and without its log output. Of models and dataset inputs: mlflow_models.py."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.store.folder import sqlite_uri
from orchestrator.tracking.places import correct_places, forget_lost, location
from trainer.config.input_files import check_own_file

PARAM_BATCH = 100
PARAM_LENGTH = 6000
TAG_LENGTH = 5000
METRIC_BATCH = 1000
"""The server's limits: parameters a request, characters a parameter, characters a tag, points a request."""
EXPERIMENT_BATCH = 100
"""Experiments per search request."""
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Makes MLflow's page show an experiment as training runs, not as traces of agents."""

QUIET = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # a model's requirements are those of its run, not of a project in the working directory
    "MLFLOW_UV_AUTO_DETECT": "false",
    # MLflow's own retries would block for minutes when the server is gone; the sender retries
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class Point(NamedTuple):
    """One value of a metric, with step and time (milliseconds since 1970)."""

    name: str
    value: float
    step: int
    time_ms: int


class Server:
    """One MLflow server, or a database with the folder `artifacts`; connected at the first call.

    Authentication is MLflow's: it reads MLFLOW_TRACKING_USERNAME, _PASSWORD, _TOKEN and others itself. Every method
    raises what MLflow raises.
    """

    def __init__(self, uri: str, artifacts: Path) -> None:
        self.uri = uri
        self._artifacts = artifacts
        self._made: Any = None

    @property
    def client(self) -> Any:
        """MLflow's client, connected."""
        if self._made is None:
            open_database(self.uri, self._artifacts)
            self._made = _mlflow().MlflowClient(tracking_uri=self.uri)
        return self._made

    def ask(self) -> None:
        """Raise unless the server answers and accepts our credentials."""
        self.client.search_experiments(max_results=1)

    def experiment(self, title: str, folder: str) -> str:
        """The id of an experiment; created where absent, restored where it was deleted. Its files go below `artifacts`,
        unless a server decides."""
        found = self.client.get_experiment_by_name(title)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        served = self.uri.startswith(("http:", "https:", "databricks"))
        place = None if served else location(self._artifacts / folder)
        return str(self.client.create_experiment(title, artifact_location=place, tags=KIND))

    def find(self, title: str) -> str | None:
        """The id of an experiment; None where there is none."""
        found = self.client.get_experiment_by_name(title)
        return None if found is None or found.lifecycle_stage == "deleted" else str(found.experiment_id)

    def experiments(self, where: str) -> dict[str, str]:
        """Name -> id of the experiments that meet a condition."""
        return {found.name: found.experiment_id for found in pages(self.client.search_experiments, filter_string=where)}

    def runs(self, experiments: Iterable[str], where: str) -> Iterator[Any]:
        """The runs of these experiments that meet a condition."""
        named = list(experiments)
        for start in range(0, len(named), EXPERIMENT_BATCH):
            yield from pages(self.client.search_runs, named[start : start + EXPERIMENT_BATCH], filter_string=where)

    def create(self, experiment: str, tags: Mapping[str, str]) -> str:
        """Create a run with status RUNNING; returns its id."""
        return str(self.client.create_run(experiment, tags=cut(tags)).info.run_id)

    def delete(self, run: str) -> None:
        """Delete a run; MLflow keeps it in its trash."""
        self.client.delete_run(run)

    def steps(self, run: str, metric: str) -> set[int]:
        """The steps at which the run has a value of the metric."""
        return {point.step for point in self.client.get_metric_history(run, metric)}

    def log(
        self,
        run: str,
        groups: Iterable[list[Point]] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add values of metrics and parameters, and set tags, in as few requests as the limits allow.

        A request is one transaction and holds whole groups. Tags are cut to the allowed length; MLflow does not allow
        changing parameters later.
        """
        from mlflow.entities import Metric, Param, RunTag

        made = [Param(name, text[:PARAM_LENGTH]) for name, text in (params or {}).items()]
        for start in range(PARAM_BATCH, len(made), PARAM_BATCH):
            self.client.log_batch(run, params=made[start : start + PARAM_BATCH])
        first = {"params": made[:PARAM_BATCH], "tags": [RunTag(name, text) for name, text in cut(tags or {}).items()]}
        for metrics in requests_of(groups, METRIC_BATCH - sum(map(len, first.values()))):
            self.client.log_batch(run, metrics=[Metric(p.name, p.value, p.time_ms, p.step) for p in metrics], **first)
            first = {}
        if any(first.values()):
            self.client.log_batch(run, **first)

    def log_points(self, run: str, points: Iterable[Point], **of: str | None) -> None:
        """Add values of metrics of a model of the run.

        `of` names the model, and the data that they were measured on: `model_id`, `dataset_name`, `dataset_digest`.
        A value that the run has already is not added to it again.
        """
        from mlflow.entities import Metric

        for request in requests_of([list(points)], METRIC_BATCH):
            self.client.log_batch(run, metrics=[Metric(p.name, p.value, p.time_ms, p.step, **of) for p in request])

    def log_file(self, run: str, path: Path) -> None:
        """Add a file under its own name; it replaces an older one."""
        self.client.log_artifact(run, str(path))

    def log_text(self, run: str, name: str, text: str) -> None:
        """Add a text as a file."""
        self.client.log_text(run, text, name)

    def reopen(self, run: str) -> None:
        """Set a run's status to RUNNING again."""
        self.client.update_run(run, status="RUNNING")

    def end(self, run: str, status: str) -> None:
        """End a run with status FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run, status)


def requests_of(groups: Iterable[list[Point]], first: int) -> Iterator[list[Point]]:
    """The points in requests of whole groups: at most `first` in the first one, and METRIC_BATCH in the others."""
    request: list[Point] = []
    most = first
    for group in groups:
        if request and len(request) + len(group) > most:
            yield request
            request, most = [], METRIC_BATCH
        request = [*request, *group]
    if request:
        yield request


def cut(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags, cut to the length that a server accepts."""
    return {name: text[:TAG_LENGTH] for name, text in tags.items()}


def open_database(uri: str, artifacts: Path) -> None:
    """Make an SQLite database ready: create one that does not exist, and correct the places in one that has moved with
    its store. Other addresses are left alone. Only the driver calls it, never workers.

    MLflow's migrations take seconds, and a database whose migration was interrupted is unusable: it is created under
    a temporary name and renamed.
    """
    if not uri.startswith("sqlite"):
        return
    from sqlalchemy import make_url

    url = make_url(uri)
    database = Path(url.database or "")
    check_own_file(database)
    if not (database.exists() and database.stat().st_size):
        _create(database, artifacts)
        return
    if database.parent == artifacts.parent:
        correct_places(database, artifacts)
    forget_lost(database)


def _create(database: Path, artifacts: Path) -> None:
    database.parent.mkdir(parents=True, exist_ok=True)
    _mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with database.with_name(f".{database.name}.lock").open("ab") as lock:  # studies may start at once on a new store
        fcntl.flock(lock, fcntl.LOCK_EX)
        if database.exists() and database.stat().st_size:
            return
        for rest in database.parent.glob(f".{database.name}.new*"):  # left by killed processes
            rest.unlink()
        partial = database.with_name(f".{database.name}.new")
        partial.touch()  # by the user's umask; SQLite would not let a group write it
        SqlAlchemyStore(sqlite_uri(partial), location(artifacts)).engine.dispose()
        partial.replace(database)


def read_runs(uri: str, title: str) -> list[Any] | None:
    """All runs of an experiment; None where there is none of this title. Nothing is created or written.

    Raises one of `errors()` where they cannot be read.
    """
    client = _mlflow().MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(title)
    return None if found is None else list(pages(client.search_runs, [found.experiment_id]))


def errors() -> tuple[type[Exception], ...]:
    """What a call raises where MLflow, its database or the connection fails. Another exception is a mistake of ours."""
    from sqlalchemy.exc import SQLAlchemyError

    # ValueError: an option of the address, such as ?timeout=x; OSError: also those of requests
    return (_mlflow().exceptions.MlflowException, SQLAlchemyError, ValueError, OSError)


def _mlflow() -> Any:
    """The module mlflow, without its log output."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow

    # urllib3 logs each retry; the sender logs an outage once
    for logger in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    return mlflow


def pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """What a search of MLflow's client finds, on all pages of it."""
    token = None
    while True:
        page = search(*arguments, **options, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
