"""The store is one absolute folder."""

import os
from pathlib import Path

import pytest
from sqlalchemy import make_url

from orchestrator.store.folder import Store, resolve, sqlite_uri
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import read_retries
from orchestrator.tracking.mlflow_server import open_database
from trainer.config import UserError
from trainer.files.atomic import whole_json
from trainer.files.run_folder import read_epochs, read_failure, read_notes, read_result


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("TRANSKD_STORE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_option_then_environment_then_spec_then_home(monkeypatch):
    assert resolve(None, None) == Path.home() / "transkd-store"
    assert resolve(None, "/spec") == Path("/spec")
    monkeypatch.setenv("TRANSKD_STORE", "/environment")
    assert resolve(None, "/spec") == Path("/environment")
    assert resolve("/option", "/spec") == Path("/option")
    assert resolve("~/mine") == Path.home() / "mine"


@pytest.mark.parametrize(
    ("option", "environment", "spec", "message"),
    [
        ("here", "", None, r"--store\) must be an absolute path but got here; write /.*/here"),
        (None, "./here", None, r"TRANSKD_STORE\) must be an absolute path"),
        (None, "", "here", r"cluster spec\) must be an absolute path"),
        ("hdfs://host/store", "", None, r"--store\): must be a folder, s3://.* but got hdfs://host/store"),
    ],
)
def test_what_is_not_an_absolute_folder_is_refused(monkeypatch, option, environment, spec, message):
    monkeypatch.setenv("TRANSKD_STORE", environment)
    with pytest.raises(UserError, match=message):
        resolve(option, spec)


def test_everything_lies_below_the_root(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for path in (store.ledger, store.run_dir("r"), store.cache, store.ray_dir, store.artifacts):
        assert path.is_relative_to(tmp_path)
    assert store.mlflow_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert store.mlflow_uri == "http://tracking:5000"


@pytest.mark.parametrize("name", ["a%20b", "what?x", "50%", "no#1", "a b", "größe", "%3F"])
def test_an_sqlite_address_leads_to_its_file(tmp_path, name):
    assert make_url(sqlite_uri(tmp_path / name / "mlflow.db")).database == str(tmp_path / name / "mlflow.db")


def test_identity_moves_with_the_folder(tmp_path):
    first = Store(tmp_path / "a").identity
    assert Store(tmp_path / "b").identity != first
    (tmp_path / "a").rename(tmp_path / "c")
    assert Store(tmp_path / "c").identity == first
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["identity"]


def put(kind, path):
    """Something that is no file, at the path of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    {"a pipe": os.mkfifo, "a folder": Path.mkdir, "a device": lambda there: there.symlink_to("/dev/zero")}[kind](path)


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device"])
def test_what_is_no_file_is_refused_where_the_store_keeps_one(tmp_path, kind):
    store = Store(tmp_path / "store")
    for name in ("ledger.jsonl", "lease", "leases/s", "claims/r", "identity", "mlflow.db"):
        put(kind, store.root / name)
    ledger = Ledger(store.ledger)
    for action in (
        ledger.outcomes,
        lambda: ledger.append_epochs("run", []),
        store.leases.drivers,
        lambda: store.leases.whole().__enter__(),
        lambda: store.leases.study("s").__enter__(),
        lambda: store.leases.claim("r", "s"),
        lambda: store.identity,
        lambda: open_database(store.mlflow_uri, store.artifacts),
    ):
        with pytest.raises(UserError, match=f"must be a file but is {kind}; move it away"):
            action()


def test_a_ledger_that_becomes_a_pipe_is_refused_too(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append({"event": "study", "study": "s"})
    assert list(ledger.events())
    ledger.path.unlink()
    os.mkfifo(ledger.path)
    with pytest.raises(UserError, match="must be a file but is a pipe"):
        ledger.events()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"a" * 12 + b"'", b"0123456789a"])
def test_an_identity_that_is_none_is_refused(tmp_path, content):
    store = Store(tmp_path)
    before = store.identity
    (tmp_path / "identity").write_bytes(content)
    with pytest.raises(UserError, match="must hold 12 hex digits but holds"):
        _ = store.identity
    (tmp_path / "identity").write_text(f"{before}\n")
    assert store.identity == before


@pytest.mark.parametrize("kind", ["a pipe", "a folder"])
def test_files_of_a_run_and_of_the_cache_that_are_none_count_as_absent(tmp_path, kind):
    for name in ("result.json", "failure.json", "epochs.jsonl", "notes.txt", "retries.jsonl", "structure.json"):
        put(kind, tmp_path / name)
    assert read_result(tmp_path) is read_failure(tmp_path) is whole_json(tmp_path / "structure.json") is None
    assert read_epochs(tmp_path) == read_notes(tmp_path) == read_retries(tmp_path) == []
    (tmp_path / "damaged.json").write_text('{"gmacs": ')
    assert whole_json(tmp_path / "damaged.json") is None
