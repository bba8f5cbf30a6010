"""A store's MLflow database after its folder has moved, was copied, or has a path that URIs write in codes."""

import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.ledger_run import LedgerRun
from orchestrator.tracking.mlflow_server import Server
from orchestrator.tracking.run_record import Record
from orchestrator.tracking.tracker import Tracker

ODD = ["a%20b", "50%", "what?x=1", "no#1", "with space", "größe", "a%2Fb", "%", "a+b&c;d", "per cent %41 ?#"]
WHEN = "2026-01-01T00:00:00+00:00"


def sent(store: Store, run_id: str = "a" * 12, study: str = "tiny") -> Tracker:
    """A run of a study with a file, in the store's tracking."""
    folder = store.run_dir(run_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(f"run: {run_id}\n")
    tracker = Tracker(Server(store.mlflow_uri, store.artifacts), store.identity)
    run = LedgerRun(run_id, key="k", status="finished", changed=WHEN)
    tracker.mirror(Record(study, "arm", 0, "arm", run, folder))
    return tracker


def files(store: Store, study: str = "tiny") -> dict[str, set[str]]:
    """Our run id -> the names of its files, as a reader of MLflow finds them; each can be read."""
    client = MlflowClient(tracking_uri=store.mlflow_uri)
    experiment = client.get_experiment_by_name(f"transkd/{study}")
    found = {}
    for run in client.search_runs([experiment.experiment_id], "tags.`transkd.role` = 'arm'"):
        with tempfile.TemporaryDirectory() as folder:
            assert Path(client.download_artifacts(run.info.run_id, "config.yaml", folder)).read_text()
        found[run.data.tags["transkd.run_id"]] = {file.path for file in client.list_artifacts(run.info.run_id)}
    return found


@pytest.fixture
def make(begun):
    """make(path): a store with MLflow's tables, migrated elsewhere."""
    return lambda path: Store(begun(path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_the_database_and_the_artifacts_lie_in_the_store_whatever_its_path(tmp_path, make, name):
    store = make(tmp_path / name / "store")
    sent(store)
    assert files(store) == {"a" * 12: {"config.yaml"}}
    assert len(list(store.artifacts.rglob("config.yaml"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing beside it"


@pytest.mark.slow
def test_a_new_database_is_made_in_a_folder_with_an_odd_name(tmp_path):
    store = Store(tmp_path / "a%20b ?#ü" / "store")
    sent(store)
    assert (store.root / "mlflow.db").stat().st_size and files(store) == {"a" * 12: {"config.yaml"}}
    assert [path.name for path in tmp_path.iterdir()] == ["a%20b ?#ü"]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("here", "there"), ("a b", "c"), ("here", "a%20b?"), ("x%41", "y%41#")])
def test_a_moved_store_is_read_and_written_where_it_is(tmp_path, make, before, after):
    old, new = make(tmp_path / before / "store"), Store(tmp_path / after / "store")
    sent(old)
    (tmp_path / before).rename(tmp_path / after)
    sent(new, "b" * 12)
    sent(new, "c" * 12, "another")
    assert files(new) == {"a" * 12: {"config.yaml"}, "b" * 12: {"config.yaml"}}
    assert not (tmp_path / before).exists()


def test_a_database_outside_the_store_says_too_which_files_are_lost(tmp_path, make, uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    store = make(tmp_path / "store")
    sent(store)
    next(store.artifacts.rglob("config.yaml")).unlink()
    sent(store)
    assert files(store) == {"a" * 12: {"config.yaml"}}


@pytest.mark.slow
def test_a_copy_leaves_the_original_alone(tmp_path, make):
    first = make(tmp_path / "first")
    sent(first)
    shutil.copytree(first.root, tmp_path / "second", symlinks=True)
    before = sorted(first.artifacts.rglob("*"))
    sent(Store(tmp_path / "second"), "b" * 12)
    assert sorted(first.artifacts.rglob("*")) == before and files(first).keys() == {"a" * 12}
    assert files(Store(tmp_path / "second")).keys() == {"a" * 12, "b" * 12}


def test_places_outside_the_store_stay(tmp_path, make):
    store = make(tmp_path / "here")
    sent(store)
    client = MlflowClient(tracking_uri=store.mlflow_uri)
    for name, place in (("mine", f"{tmp_path}/mine/mlartifacts/x"), ("bucket", "s3://bucket/x")):
        client.create_experiment(name, artifact_location=place)
    moved = Store(store.root.rename(tmp_path / "there"))
    sent(moved)
    with sqlite3.connect(moved.root / "mlflow.db") as database:
        places = dict(database.execute("SELECT name, artifact_location FROM experiments"))
    assert places["mine"] == f"{tmp_path}/mine/mlartifacts/x" and places["bucket"] == "s3://bucket/x"
    assert places["transkd/tiny"] == f"{tmp_path}/there/mlartifacts/tiny"


@pytest.mark.parametrize("what", ["all", "the folder of the run", "a file"])
def test_files_that_were_deleted_are_sent_again(tmp_path, make, what):
    store = make(tmp_path / "store")
    sent(store)
    (file,) = store.artifacts.rglob("config.yaml")
    if what == "a file":
        file.unlink()
    else:
        shutil.rmtree(store.artifacts if what == "all" else file.parents[1])
    sent(store)
    assert files(store) == {"a" * 12: {"config.yaml"}}
    assert not Ledger(store.ledger).outcomes()
