"""A study in MLflow: a parent, a child a run, all of it once, however it ends; all of it again when that is lost."""

import contextlib
import shutil

import pytest
import yaml
from mlflow import MlflowClient

from ablations.study.plan import expand
from ablations.study.schema import load
from orchestrator.launch import Launch
from orchestrator.store.folder import Store
from orchestrator.store.full_disk import StoreFull
from orchestrator.store.ledger import Ledger
from orchestrator.verbs.run import launch
from orchestrator.verbs.sync import sync
from trainer.config import UserError

PLACE = {"run_id": "a" * 12, "study": "tiny", "arm": "only", "seed": 0, "role": "arm"}
FINISHED = {"event": "finished", "last": {"epoch": 1.0, "val/miou": 5.0}}


def content(driver, study="tiny"):
    """All that MLflow holds of a study but ids and times: {run name: (status, parent, params, points, files)}."""
    client = MlflowClient(tracking_uri=f"sqlite:///{driver.store}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name(f"transkd/{study}").experiment_id])
    names = {run.info.run_id: run.info.run_name for run in runs}
    assert len(names) == len(set(names.values())), "one run for each (variant, seed), and one for the study"
    found = {}
    for run in runs:
        points = {
            metric: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]
            for metric in run.data.metrics
        }
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        parent = names.get(run.data.tags.get("mlflow.parentRunId"))
        found[run.info.run_name] = (run.info.status, parent, run.data.params, points, files)
    return found


@pytest.mark.slow
@pytest.mark.ray
def test_parent_children_parameters_points_and_files(finished):
    found = content(finished.driver)
    status, parent, _, _, files = found.pop("tiny")
    assert (status, parent) == ("FINISHED", None)
    assert {"table.md", "table.csv"} <= files
    arms = {name.removesuffix(" seed 1") for name in found if name.endswith(" seed 1")}
    assert arms, "those of several seeds have a run of their own"
    for arm in arms:
        assert found.pop(arm)[:2] == ("FINISHED", "tiny")
    assert len(found) == 7
    assert {name: status for name, (status, *_) in found.items() if status != "FINISHED"} == {
        "broken seed 0": "FAILED",
        "broken seed 1": "FAILED",
    }
    for (arm, seed, run_id), epochs in finished.driver.numbers().items():
        status, parent, params, points, files = found[f"{arm} seed {seed}"]
        assert parent == (arm if arm in arms else "tiny")
        assert files == {"config.yaml", "epochs.jsonl", "result.json", "panel.png", "per_class_iou.json"}
        config = yaml.safe_load((finished.driver.store / "runs" / run_id / "config.yaml").read_text())
        assert params["optim.lr"] == str(config["optim"]["lr"])
        assert params["student.name"] == config["student"]["name"]
        assert params["seed"] == str(seed)
        for metric in epochs[0]:
            assert points[metric] == [(epoch["epoch"], epoch[metric]) for epoch in epochs], metric


@pytest.mark.slow
@pytest.mark.ray
def test_a_lost_database_is_rebuilt_whole_and_twice_adds_nothing(finished, tmp_path):
    # elsewhere, for MLflow of this process may hold the database that is lost
    lost = type(finished.driver)(tmp_path / "lost" / "store")
    shutil.copytree(finished.driver.store, lost.store, ignore=shutil.ignore_patterns("mlflow.db"))
    for _ in range(2):
        done = lost.here("sync", finished.file)
        assert (done.code, done.err) == (0, "writing the report, and sending MLflow what it lacks\n")
        assert done.out == f"7 runs are up to date at sqlite:///{lost.store}/mlflow.db\n"
        assert content(lost) == content(finished.driver)


@pytest.fixture
def one(study, client, uri, monkeypatch):
    """A study of one run, whose MLflow is `client`'s: its file."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    data = {"name": "scenes", "size": [64, 128], "options": {"train": 16, "val": 8, "size": [64, 128]}}
    base = {"data": data, "student": {"name": "segformer_tiny"}, "optim": {"epochs": 2}}
    return study(base=base, variants={"only": {}}, seeds=[0])


def begin(file, ledger, *more):
    """Write into a ledger that the study's run began, did an epoch, and met these events."""
    (run,) = expand(load(str(file)))
    for event in ({"event": "started"}, {"event": "epoch", "metrics": {"epoch": 1.0, "loss": 0.5}}, *more):
        ledger.append({**PLACE, "key": run.key, **event})


def shown(client):
    """Name -> (status, epochs) of all runs of the study that MLflow has."""
    runs = client.search_runs([client.get_experiment_by_name("transkd/tiny").experiment_id])
    return {
        run.info.run_name: (run.info.status, len(client.get_metric_history(run.info.run_id, "loss"))) for run in runs
    }


@pytest.mark.slow
@pytest.mark.parametrize("report", ["written", "not to be written"])
@pytest.mark.parametrize("error", [None, StoreFull, KeyboardInterrupt, ZeroDivisionError])
def test_tracking_is_closed_however_a_driver_ends(one, client, tmp_path, monkeypatch, capsys, error, report):
    store = Store(tmp_path / "store")
    store.root.mkdir()

    def run(self, mirror, make_view, say):
        if report == "not to be written":
            (store.root / "studies").write_text("a file in the place of the folder")
        begin(one, self.ledger, *([] if error else [FINISHED]))
        mirror.send("a" * 12, "only", 0, "arm")
        if error:
            raise error("the end")

    monkeypatch.setattr(Launch, "prepare", lambda self, say: None)
    monkeypatch.setattr(Launch, "run", run)
    raised = error or (NotADirectoryError if report == "not to be written" else None)
    with pytest.raises(raised) if raised else contextlib.nullcontext():
        launch(str(one), store=store.root)
    status = "KILLED" if error else "FINISHED"
    assert shown(client) == {"tiny": (status, 0), "only seed 0": (status, 1)}
    assert ("no report: " in capsys.readouterr().err) == (error is not None and report == "not to be written")


def test_a_report_that_cannot_be_written_is_told_before_anything_runs(one, tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    store.root.mkdir()
    (store.root / "studies").write_text("a file in the place of the folder")
    monkeypatch.setattr(Launch, "prepare", None)
    with pytest.raises(UserError, match=f"^the report .*: {store.root}/studies is a file, in which nothing can be"):
        launch(str(one), store=store.root)


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "status"), [([], "KILLED"), ([FINISHED], "FINISHED")])
def test_what_a_killed_driver_left_is_sent_by_sync(one, client, tmp_path, capsys, ending, status):
    store = Store(tmp_path / "store")
    begin(one, Ledger(store.ledger), *ending)
    for _ in range(2):
        sync(str(one), store.root)
        assert capsys.readouterr().out.startswith("1 run is up to date at ")
        assert shown(client) == {"tiny": (status, 0), "only seed 0": (status, 1)}
