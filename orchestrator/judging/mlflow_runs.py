"""The runs of an MLflow experiment as a frame: a row for each run, a column for each tag, parameter and last metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.judging.frame import Frame, frame_of
from orchestrator.store.folder import Store, resolve
from orchestrator.tracking.address import check_driver, check_uri, shown, uri_of
from orchestrator.tracking.mlflow_server import errors, read_runs
from orchestrator.tracking.tracker import SEEDS
from trainer.config import UserError, message_of, require

ABOVE = ("study", SEEDS)
"""Roles of our own runs that have no seed: a study, and an arm over its seeds."""


def read_experiment(title: str, uri: str | None) -> Frame:
    """The runs of an experiment, of the server or database `uri`, by default that of the environment or the store.

    Raises UserError where it cannot be read, has no runs, or MLflow is not installed.
    """
    for name, text, remedy in (
        ("mlflow", title, "EXPERIMENT"),
        ("tracking-uri", uri, "http://HOST:PORT, or leave it out"),
    ):
        if text is not None and not text.strip():
            raise UserError(f"--{name} must not be empty but got '{text}'; write --{name} {remedy}")
    require("judge --mlflow", "mlflow")
    address = _address(uri)
    where = f"MLflow experiment {title} of {shown(address)}"
    try:
        runs = read_runs(address, title)
    except errors() as error:
        raise UserError(
            f"{where} cannot be read: {message_of(error)}; check the address, and that it answers"
        ) from None
    if runs is None:
        raise UserError(f"--mlflow: {where}: there is no such experiment; its name stands in MLflow's list")
    rows = [_row(run) for run in runs if run.data.tags.get("transkd.role") not in ABOVE]
    if not rows:
        raise UserError(f"--mlflow: {where} has no runs; name another experiment")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return frame_of({name: [row.get(name) for row in rows] for name in names}, where)


def _row(run: Any) -> dict[str, Any]:
    """What is known of a run. A metric comes before a parameter of the same name, and that before a tag."""
    tags = {name: text for name, text in run.data.tags.items() if not name.startswith("mlflow.")}
    return {
        "name": run.data.tags.get("mlflow.runName", run.info.run_id),
        "status": run.info.status,
        **tags,
        **run.data.params,
        **run.data.metrics,
    }


def _address(uri: str | None) -> str:
    """The tracking URI, checked; a database must be there."""
    store = Store(resolve(None, None))
    if uri is None:
        address = uri_of(store)
    else:
        try:
            address = check_uri(uri, store.databases)
            check_driver(address)
        except UserError as error:
            raise UserError(str(error).replace("MLFLOW_TRACKING_URI", "--tracking-uri")) from None
    if address.startswith("sqlite:") and not (file := Path(address.partition(":///")[2].partition("?")[0])).is_file():
        raise UserError(f"no MLflow database {file}; give --tracking-uri, or set MLFLOW_TRACKING_URI")
    return address
