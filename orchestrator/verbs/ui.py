"""ui: start MLflow's web page for the store."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.verbs.options import ClusterOption, StoreOption, store_of

if TYPE_CHECKING:
    from orchestrator.store.folder import Store

HOST = "127.0.0.1"


def ui(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="the study to open [the one that ran last]")
    ] = None,
    store: StoreOption = None,
    cluster: ClusterOption = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="port of the page")] = 5000,
) -> None:
    """Start MLflow's web page for the store, and print its address. Ctrl-C ends it."""
    from orchestrator.state.stored_studies import load_study, stored_studies
    from orchestrator.store.ledger import Ledger
    from orchestrator.tracking.address import database_file, shown, training_page, uri_of
    from orchestrator.tracking.mlflow_server import Server
    from trainer.config import UserError, require

    require("ui", "mlflow")
    where = store_of(store, cluster)
    uri = uri_of(where)
    if uri.startswith(("http", "databricks")):
        raise UserError(f"the page of this tracking is its server's own; open {shown(uri)} in a browser")
    ledger = Ledger(where.ledger)
    if not (os.environ.get("MLFLOW_TRACKING_URI") or ledger.exists or where.database.exists()):
        raise UserError(f"no study has run in store {where.name}; give the folder or address of one with --store")
    name = load_study(study, ledger).name if study else next(reversed(stored_studies(ledger)), "")
    _check_port(port)
    uri = _writable(uri, where)
    if (file := database_file(uri)) is not None and not file.exists():
        raise UserError(f"MLflow's database {file} is not on this machine; `transkd sync {name}` makes it")
    experiment = Server(uri, where.artifacts).find(f"transkd/{name}")
    print(f"MLflow: {training_page(f'http://{HOST}:{port}', experiment)} (Ctrl-C ends it)", flush=True)
    # not in its command line, which other users of this machine see: the address may hold a password
    surroundings = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    options = ["--host", HOST, "--port", str(port)]
    os.execve(sys.executable, [sys.executable, "-P", "-m", "mlflow", "ui", *options], surroundings)


def _check_port(port: int) -> None:
    """Raise UserError where another program has the port: MLflow would end without an error."""
    from trainer.config import UserError

    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
        except OSError as error:
            raise UserError(f"--port {port} cannot be used ({error.strerror}); choose another") from None


def _writable(uri: str, store: Store) -> str:
    """The address; of a copy outside where the store's own database cannot be written, as MLflow needs, or is one that
    an earlier version has made on a network file system."""
    from orchestrator.store.folder import sqlite_uri
    from orchestrator.tracking.places import correct_places
    from trainer.config import digest

    own = store.root / "mlflow.db"
    is_elsewhere = store.database != own
    if uri != sqlite_uri(store.database) or not own.exists() or (is_elsewhere and store.database.exists()):
        return uri
    if not (is_elsewhere or store.is_read_only):
        return uri
    copy = store.cache / "mlflow" / f"{digest(str(store.root))}.db"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(own, copy)
    correct_places(copy, store.artifacts)
    return sqlite_uri(copy)
