"""ui: start MLflow's web page for the store."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from orchestrator.verbs.options import ClusterOption, StoreOption, store_of


def ui(
    store: StoreOption = None,
    cluster: ClusterOption = None,
    port: Annotated[int, typer.Option(help="port of the page")] = 5000,
) -> None:
    """Start MLflow's web page for the store. Ctrl-C ends it."""
    from orchestrator.tracking.address import check_uri, shown
    from orchestrator.tracking.mlflow_server import open_database
    from trainer.config import UserError

    where = store_of(store, cluster)
    uri = check_uri(where.mlflow_uri, where.root)
    if uri.startswith(("http", "databricks")):
        raise UserError(f"the page of this tracking is its server's own; open {shown(uri)} in a browser")
    open_database(uri, where.artifacts)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port)]
    os.execv(sys.executable, command)
