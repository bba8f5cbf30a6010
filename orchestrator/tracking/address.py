"""The tracking URI: checked before a study starts, and shown without its password."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.store.disks import file_system, is_on_network
from orchestrator.store.folder import Store, sqlite_uri
from trainer.config import UserError, masked, message_of, unknown

SERVERS = ("http", "https", "databricks")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""What MLflow 3 keeps runs in; a database may name its driver, as in `mysql+pymysql`."""
SQLITE_OPTIONS = ("timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements")
"""What may follow the `?` of a SQLite address: the options of `sqlite3.connect`, except `factory` and `uri`."""


def uri_of(store: Store) -> str:
    """The tracking URI of a store: its own database, whatever its path, or a checked `MLFLOW_TRACKING_URI`. Raises
    UserError where MLflow cannot use it, or would lose runs to a network file system."""
    uri = store.mlflow_uri
    if uri != sqlite_uri(store.database):
        check_uri(uri, store.databases)
        check_driver(uri)
    if (file := database_file(uri)) is not None and is_on_network(file.parent):
        raise UserError(
            f"MLFLOW_TRACKING_URI must be a server, or a database on this machine's own disk, but {file} is on "
            f"{file_system(file.parent)}, which damages SQLite; start `mlflow server` and write its http://HOST:PORT, "
            "or set TRANSKD_CACHE to a folder on a disk of this machine"
        )
    return uri


def database_file(uri: str) -> Path | None:
    """The file of an SQLite address; None of another."""
    return Path("/", unquote(uri.partition(":///")[2].partition("?")[0])) if uri.startswith("sqlite") else None


def check_uri(uri: str, store: Path) -> str:
    """The URI as given. Raises UserError where MLflow cannot use it. Whether a server answers is not checked, as runs
    train without tracking too."""
    scheme, colon, rest = uri.partition(":")
    plugins = {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}
    if uri == "databricks" or scheme in plugins:
        return uri
    if scheme == "file" or not colon or Path(uri).is_absolute():
        raise UserError(
            f"MLFLOW_TRACKING_URI must be a server or a database but got the folder {uri}, in which MLflow 3 keeps no "
            f"runs; write sqlite:///{store}/mlflow.db, or unset it"
        )
    engine = scheme.partition("+")[0]
    if not uri.isprintable() or (" " in uri and engine != "sqlite"):
        raise UserError("MLFLOW_TRACKING_URI must not hold spaces or control characters; write spaces as %20")
    try:
        host = urlsplit(uri).hostname
    except ValueError:  # its text may repeat the password
        raise UserError(
            f"MLFLOW_TRACKING_URI must be {scheme}://ADDRESS, and its address cannot be read; brackets stand around an "
            "IPv6 address, as in http://[::1]:5000, and are %5B and %5D elsewhere"
        ) from None
    if engine not in (*SERVERS, *DATABASES):
        raise unknown("MLFLOW_TRACKING_URI scheme", engine, [*SERVERS, *DATABASES, *plugins])
    if not rest.startswith("//") or (engine in ("http", "https") and not host):
        raise UserError(f"MLFLOW_TRACKING_URI must be {engine}://ADDRESS but got {shown(uri)}")
    if not _has_port(uri):
        raise UserError(f"MLFLOW_TRACKING_URI must be {scheme}://HOST:PORT/..., and a port is a number of 1 to 65535")
    if engine in DATABASES[1:] and not (host and urlsplit(uri).path.strip("/")):
        raise UserError(f"MLFLOW_TRACKING_URI must be {scheme}://HOST/DATABASE but got {shown(uri)}")
    if engine == "sqlite":
        _check_sqlite(scheme, rest, store)
    return uri


def _check_sqlite(scheme: str, rest: str, store: Path) -> None:
    """Raise UserError unless the rest of an SQLite address, `////FOLDER/FILE?OPTION=VALUE`, can be opened."""
    path, _, query = rest.partition("?")
    if not path.startswith("////"):
        name = path.lstrip("/")
        raise UserError(f"MLFLOW_TRACKING_URI must name an absolute path, not {name}; write {scheme}:///{store}/{name}")
    for name in (part.partition("=")[0] for part in query.split("&") if part):
        if name not in SQLITE_OPTIONS:
            raise UserError(
                f"MLFLOW_TRACKING_URI: SQLite has no option {masked(name)}; remove it, or write %3F for a `?` of the "
                f"path; known: {', '.join(SQLITE_OPTIONS)}"
            )
    folder = Path(unquote(path[3:])).parent
    if folder != store and not folder.is_dir():  # the store is made when it is needed
        raise UserError(f"MLFLOW_TRACKING_URI: there is no folder {folder}; make it, or correct the path")


def page_of(uri: str, study: str) -> str:
    """How to see a study's runs: the server's address, or the command that shows a database."""
    served = uri.startswith(("http:", "https:", "databricks"))
    return shown(uri) if served else f"{shown(uri)}; `transkd ui {study}` shows it"


def training_page(root: str, experiment: str | None) -> str:
    """The address of an experiment's runs in the training view; without an experiment, that of the first page."""
    view = "workflowType=machine_learning"
    return f"{root}/#/experiments/{experiment}/runs?{view}" if experiment else f"{root}/#/experiments?{view}"


def check_driver(uri: str) -> None:
    """Raise UserError where the URI is of a database whose driver is not installed."""
    if uri.partition(":")[0].partition("+")[0] not in DATABASES:
        return
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        make_url(uri).get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise UserError(
            f"MLFLOW_TRACKING_URI: no driver for {shown(uri)} is installed ({message_of(error)}); install it, or name "
            "another, such as postgresql+psycopg2"
        ) from None


def shown(uri: str) -> str:
    """The URI without its password, for people and logs."""
    return masked(uri)


def _has_port(uri: str) -> bool:
    """Whether the URI's port is one, or left out."""
    try:
        return urlsplit(uri).port != 0
    except ValueError:
        return False
