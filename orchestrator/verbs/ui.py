"""ui: start MLflow's web page for the store."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated

import typer

from orchestrator.verbs.options import ClusterOption, StoreOption, store_of

HOST = "127.0.0.1"


def ui(
    store: StoreOption = None,
    cluster: ClusterOption = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="port of the page")] = 5000,
) -> None:
    """Start MLflow's web page for the store. Ctrl-C ends it."""
    from orchestrator.tracking.address import check_uri, shown
    from orchestrator.tracking.mlflow_server import create_database
    from trainer.config import UserError

    where = store_of(store, cluster)
    uri = check_uri(where.mlflow_uri, where.root)
    if uri.startswith(("http", "databricks")):
        raise UserError(f"the page of this tracking is its server's own; open {shown(uri)} in a browser")
    if not (os.environ.get("MLFLOW_TRACKING_URI") or where.ledger.exists() or where.database.exists()):
        raise UserError(f"no study has run in store {where.root}; give the folder of one with --store")
    _check_port(port)
    create_database(uri, where.artifacts)
    command = [
        sys.executable,
        "-P",
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        uri,
        "--host",
        HOST,
        "--port",
        str(port),
    ]
    os.execv(sys.executable, command)


def _check_port(port: int) -> None:
    """Raise UserError where another program has the port: MLflow would end without an error."""
    from trainer.config import UserError

    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
        except OSError as error:
            raise UserError(f"--port {port} cannot be used ({error.strerror}); choose another") from None
