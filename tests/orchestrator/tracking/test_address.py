"""The address of tracking is refused where it could never work, taken where it could, and told without a password."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from orchestrator.store.folder import Store
from orchestrator.tracking.address import check_driver, check_uri, shown, uri_of
from trainer.config import UserError

STORE = Path("/data/store")


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:5000",
        "https://user:secret@tracking.example.org/mlflow",
        "sqlite:////data/store/mlflow.db",
        "sqlite:////tmp/my runs.db?timeout=60",
        "postgresql://host/db",
        "mysql+pymysql://user:secret@host:3306/db",
        "databricks",
        "databricks://profile",
    ],
)
def test_what_mlflow_can_use_is_taken_as_it_is(uri):
    assert check_uri(uri, STORE) == uri


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("htp://127.0.0.1:5000", "unknown MLFLOW_TRACKING_URI scheme 'htp'; did you mean 'http'?"),
        ("postgres://host/db", "unknown MLFLOW_TRACKING_URI scheme 'postgres'; did you mean 'postgresql'?"),
        ("http:/127.0.0.1:5000", "MLFLOW_TRACKING_URI must be http://ADDRESS but got http:/127.0.0.1:5000"),
        (
            "http://me:secret@[::1",
            "must be http://ADDRESS, and its address cannot be read; brackets stand around an IPv6",
        ),
        ("http://", "MLFLOW_TRACKING_URI must be http://ADDRESS but got http://"),
        ("sqlite:///mlflow.db", "must name an absolute path, not mlflow.db; write sqlite:////data/store/mlflow.db"),
        (
            "file:///tmp/mlruns",
            "the folder file:///tmp/mlruns, in which MLflow 3 keeps no runs; write sqlite:////data/",
        ),
        (
            "/tmp/mlruns",
            "the folder /tmp/mlruns, in which MLflow 3 keeps no runs; write sqlite:////data/store/mlflow.db",
        ),
        ("mlruns", "the folder mlruns, in which MLflow 3 keeps no runs"),
        ("http://me:secret@host:99999", "must be http://HOST:PORT/..., and a port is a number of 1 to 65535"),
        ("http://me:secret@host:notaport", "must be http://HOST:PORT/..., and a port is a number of 1 to 65535"),
        ("http://host:secret", "must be http://HOST:PORT/..., and a port is a number of 1 to 65535"),
        ("http:/me:secret@host", "MLFLOW_TRACKING_URI must be http://ADDRESS but got http:/***@host"),
        ("http:///x?token=secret", "must be http://ADDRESS but got http:///x?token=***"),
        ("postgresql://me:secret@/db", "must be postgresql://HOST/DATABASE but got postgresql://***@/db"),
        ("mysql+pymysql://host", "must be mysql+pymysql://HOST/DATABASE but got mysql+pymysql://host"),
        ("sqlite:////tmp/x.db?token=secret", "SQLite has no option token; remove it"),
        ("sqlite:////tmp/x.db?timeout=3&mode=secret", "SQLite has no option mode; remove it"),
        ("sqlite:////no/such/x.db", "there is no folder /no/such; make it, or correct the path"),
        ("http://me:secret@host\n:1", "must not hold spaces or control characters"),
    ],
)
def test_what_it_never_could_is_refused_with_the_remedy(uri, error):
    with pytest.raises(UserError) as refused:
        check_uri(uri, STORE)
    assert error in str(refused.value) and "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["my store", "a\tb", "über", "50 %?#"])
def test_the_database_of_a_store_needs_no_name_of_a_kind(tmp_path, monkeypatch, name):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store(tmp_path / name)
    assert make_url(uri_of(store)).database == str(store.database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "htp://host")
    with pytest.raises(UserError, match="unknown MLFLOW_TRACKING_URI scheme"):
        uri_of(store)


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("https://me:secret@host:5000/x", "https://***@host:5000/x"),
        ("postgresql://me:a@b@host/db", "postgresql://***@host/db"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
    ],
)
def test_a_password_is_not_told(uri, told):
    assert shown(uri) == told


def test_a_database_without_its_driver_is_refused():
    for uri in ("http://127.0.0.1:5000", "sqlite:////data/store/mlflow.db"):
        check_driver(uri)
    for uri in ("mssql+pymssql://me:secret@host/db", "mysql+nosuchdriver://me:secret@host/db"):
        with pytest.raises(UserError, match=r"no driver for .*://\*\*\*@host/db is installed") as refused:
            check_driver(uri)
        assert "secret" not in str(refused.value)
