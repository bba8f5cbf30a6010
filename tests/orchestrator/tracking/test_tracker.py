"""MLflow mirrors the store: each point once, everything under its study, and nothing left RUNNING."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.store.epochs import Epochs
from orchestrator.store.ledger_run import LedgerRun
from orchestrator.tracking.mlflow_server import Server
from orchestrator.tracking.run_record import Record, flatten, milliseconds
from orchestrator.tracking.tracker import Tracker

CONFIG = {"optim": {"lr": 6.0e-5, "epochs": 4}, "distill": {}, "data": {"size": [96, 192]}, "student": {"name": "b0"}}

KILLED_DRIVER = """
import sys, time
from pathlib import Path
from orchestrator.store.ledger_run import LedgerRun
from orchestrator.tracking.run_record import Record
from orchestrator.tracking.tracker import Tracker
from orchestrator.tracking.mlflow_server import Server
uri, artifacts, folder = sys.argv[1:]
tracker = Tracker(Server(uri, Path(artifacts)), "mine")
tracker.open("demo")
run = LedgerRun("run0", key="key0", status="running", attempts=1, config={"optim.lr": 0.1})
tracker.mirror(Record("demo", "base", 0, "arm", run, Path(folder)))
print("mirrored", flush=True)
time.sleep(60)
"""


@pytest.fixture
def make(uri, tmp_path):
    """Trackers as successive drivers would make them: each knows only what the server tells."""
    return lambda owner="mine": Tracker(Server(uri, tmp_path / "artifacts"), owner)


@pytest.fixture
def record(tmp_path):
    """record(epochs, status, ...): a run of so many epochs, as ledger and folder tell it."""

    def make_record(epochs, status="running", seed=0, extra=None, files=None, **changes):
        folder = tmp_path / f"run{seed}"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(json.dumps(CONFIG))
        rows = [
            {"epoch": e, "step": 10 * e, "loss": 1 / e, "val/miou": 10.0 * e, "val/iou/road": 20.0 * e, **(extra or {})}
            for e in range(1, epochs + 1)
        ]
        for name, content in (files or {}).items():
            (folder / name).write_bytes(content)
        ledger = {
            "key": f"key{seed}",
            "attempts": 1,
            "config": CONFIG,
            "epochs": Epochs(),
            "changed": "2026-01-01T02:00:00+00:00",
        }
        for row in rows:
            ledger["epochs"].add(f"2026-01-01T{row['epoch'] // 60:02}:{row['epoch'] % 60:02}:00+00:00", row)
        if status == "finished":
            ledger |= {
                "best": {"epoch": epochs, "val/miou": 10.0 * epochs},
                "complexity": {"params_m": 3.72, "on": "x"},
            }
        ledger |= {name: changes.pop(name) for name in ("attempts", "cause", "config", "reason") if name in changes}
        place = {"study": "demo", "arm": "base", "role": "arm", **changes}
        return Record(**place, seed=seed, run=LedgerRun(f"run{seed}", status=status, **ledger), folder=folder)

    return make_record


def children(client, study="demo"):
    experiment = client.get_experiment_by_name(f"transkd/{study}")
    runs = client.search_runs([experiment.experiment_id], order_by=["tags.`mlflow.runName`"])
    return [run for run in runs if run.data.tags["transkd.role"] != "study"]


def parent(client, study="demo"):
    experiment = client.get_experiment_by_name(f"transkd/{study}")
    return next(r for r in client.search_runs([experiment.experiment_id]) if r.data.tags["transkd.role"] == "study")


def steps(client, run, metric="val/miou"):
    return [point.step for point in client.get_metric_history(run.info.run_id, metric)]


@pytest.mark.slow
def test_a_run_is_mirrored_whole(make, client, record, tmp_path):
    tracker = make()
    tracker.open("demo")
    for epoch in (1, 2, 3):
        tracker.mirror(record(epoch))
        assert [run.info.status for run in children(client)] == ["RUNNING"]
    tracker.mirror(record(4, "finished", files={"panel.png": b"picture"}))
    tracker.close("demo")

    (run,) = children(client)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "base seed 0")
    assert run.data.tags["mlflow.parentRunId"] == parent(client).info.run_id
    assert run.data.tags["transkd.key"] == "key0"
    assert run.data.params == flatten(CONFIG)
    assert run.data.params["optim.lr"] == "6e-05"
    for metric in ("loss", "val/miou", "val/iou/road", "step"):
        assert steps(client, run, metric) == [1, 2, 3, 4]
    assert run.data.metrics["best/val/miou"] == 40.0
    assert run.data.metrics["complexity/params_m"] == 3.72
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"config.yaml", "panel.png", "per_class_iou.json"}
    assert (parent(client).info.status, parent(client).info.run_name) == ("FINISHED", "demo")
    assert not (tmp_path / "mlruns").exists()


def test_the_numbers_and_tags_of_a_run_are_sent_in_two_requests(make, record, monkeypatch):
    from mlflow import MlflowClient

    sent = []
    log_batch = MlflowClient.log_batch

    def counted(self, run, metrics=(), params=(), tags=(), **options):
        sent.append((len(metrics), len(params), len(tags)))
        return log_batch(self, run, metrics, params, tags, **options)

    tracker = make()
    tracker.open("demo")
    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    tracker.mirror(record(3))
    (points, params, _), *more = sent
    assert points == 15 and params > 0 and not more
    sent.clear()
    tracker.mirror(record(4, "finished"))
    (points, params, tags), (no_points, no_params, last_tags) = sent
    assert points == 5 + 3 and params == 0 and tags > 0
    assert no_points == no_params == 0 and last_tags > 0


def test_a_point_has_the_time_at_which_its_epoch_was(make, client, record):
    make().mirror(record(2, "finished"))
    (run,) = children(client)
    epochs = client.get_metric_history(run.info.run_id, "loss")
    assert [datetime.fromtimestamp(point.timestamp / 1000, UTC).minute for point in epochs] == [1, 2]
    (best,) = client.get_metric_history(run.info.run_id, "best/val/miou")
    assert best.timestamp == milliseconds("2026-01-01T02:00:00+00:00")


@pytest.mark.slow
def test_said_again_nothing_is_added(make, client, record):
    for _ in range(3):
        tracker = make()
        tracker.open("demo")
        for seed in range(2):
            tracker.mirror(record(3, "finished", seed))
        assert len(children(client)) == 2
        for run in children(client):
            assert steps(client, run) == [1, 2, 3]
            assert steps(client, run, "best/val/miou") == steps(client, run, "complexity/params_m") == [0]


@pytest.mark.slow
def test_a_run_resumed_three_times_is_one_run(make, client, record):
    for attempt, epochs in enumerate((2, 1, 3), start=1):
        tracker = make()
        tracker.reconcile()
        tracker.open("demo")
        assert [run.info.status for run in children(client)] == ["KILLED"] * (attempt > 1)
        tracker.mirror(record(epochs, attempts=attempt))
        assert [run.info.status for run in children(client)] == ["RUNNING"]
    make().mirror(record(4, "finished", attempts=3))
    (run,) = children(client)
    assert run.data.tags["transkd.attempts"] == "3"
    assert run.data.tags["transkd.status"] == "finished"
    assert steps(client, run) == [1, 2, 3, 4]
    assert run.info.status == "FINISHED"


def test_a_failed_run_says_why_and_may_finish_later(make, client, record):
    make().mirror(record(2, "failed", cause="nan", reason="loss/pea is nan at step 7"))
    (run,) = children(client)
    assert (run.info.status, run.data.tags["transkd.cause"]) == ("FAILED", "nan")
    assert run.data.tags["transkd.reason"] == "loss/pea is nan at step 7"
    make().mirror(record(3, "finished", attempts=2))
    (run,) = children(client)
    assert (run.info.status, run.data.tags["transkd.reason"]) == ("FINISHED", "")
    assert steps(client, run) == [1, 2, 3]


@pytest.mark.parametrize("status", ["stopped", "interrupted"])
def test_what_was_stopped_or_interrupted_is_told_from_what_finished(make, client, record, status):
    make().mirror(record(1, status, role="trial"))
    (run,) = children(client)
    assert (run.info.status, run.data.tags["transkd.status"]) == ("KILLED", status)


def test_a_run_of_two_studies_stands_under_both(make, client, record):
    tracker = make()
    tracker.mirror(record(2, "finished"))
    tracker.mirror(record(2, "finished", study="other", arm="reference"))
    (other,) = children(client, "other")
    assert other.info.run_name == "reference seed 0"
    assert steps(client, other) == steps(client, children(client)[0]) == [1, 2]


def test_what_is_not_a_number_is_named_and_left_out(make, client, record):
    make().mirror(record(2, extra={"loss/pea": float("nan"), "loss/csf": float("inf")}))
    (run,) = children(client)
    assert "loss/pea" not in run.data.metrics
    assert "loss/csf" not in run.data.metrics
    assert run.data.tags["transkd.not_finite"].startswith("loss/pea at epoch 1; loss/csf at epoch 1; ")


@pytest.mark.slow
def test_long_runs_and_long_parameters_fit_the_limits(make, client, record):
    extra = {f"val/iou/class {n}": 1.0 for n in range(50)}
    config = {"options": {f"p{n}": n for n in range(230)}, "long": "x" * 7000}
    make().mirror(record(60, "failed", extra=extra, config=config, reason="y" * 9000))
    (run,) = children(client)
    assert steps(client, run, "val/iou/class 49") == list(range(1, 61))
    assert len(run.data.params) == 231
    assert len(run.data.params["long"]) == 6000


@pytest.mark.slow
def test_files_are_sent_when_they_have_changed(make, client, record, tmp_path):
    def held(run, name):
        return Path(client.download_artifacts(run.info.run_id, name)).read_bytes()

    def sent(run, name):
        return (tmp_path / "artifacts" / "demo" / run.info.run_id / "artifacts" / name).stat().st_mtime_ns

    table = tmp_path / "table.md"
    for text in ("| 1 |", "| 2 |"):  # of one length
        table.write_text(text)
        make().files("demo", [table])
        assert held(parent(client), "table.md") == text.encode()
    before = sent(parent(client), "table.md")
    make().files("demo", [table])
    assert sent(parent(client), "table.md") == before

    make().mirror(record(1, "stopped", files={"panel.png": b"one"}))
    make().mirror(record(2, "finished", files={"panel.png": b"two"}))
    assert held(children(client)[0], "panel.png") == b"two"


def test_runs_of_another_store_are_left_alone(make, client, record):
    theirs = make("theirs")
    theirs.open("demo")
    theirs.mirror(record(1))
    mine = make()
    mine.reconcile()
    mine.mirror(record(1, "finished"))
    assert sorted(run.info.status for run in children(client)) == ["FINISHED", "RUNNING"]


def test_runs_of_a_study_that_another_driver_runs_are_left_alone(make, client, record):
    other = make()
    other.open("demo")
    other.mirror(record(1))
    make().reconcile(lambda: {"demo", "none"})
    assert [run.info.status for run in (parent(client), *children(client))] == ["RUNNING", "RUNNING"]
    make().reconcile(lambda: {"none"})
    assert [run.info.status for run in (parent(client), *children(client))] == ["KILLED", "KILLED"]


def test_a_run_deleted_by_hand_comes_back(make, client, record):
    tracker = make()
    tracker.mirror(record(2))
    client.delete_run(children(client)[0].info.run_id)
    with pytest.raises(Exception, match="deleted"):
        tracker.mirror(record(3))
    assert tracker.why_unreachable() == ""
    tracker.mirror(record(3))
    assert steps(client, children(client)[0]) == [1, 2, 3]


def test_a_study_deleted_by_hand_comes_back(make, client, record):
    make().mirror(record(2))
    client.delete_experiment(client.get_experiment_by_name("transkd/demo").experiment_id)
    make().mirror(record(3))
    assert steps(client, children(client)[0]) == [1, 2, 3]


@pytest.mark.slow
def test_a_killed_driver_leaves_nothing_running(make, uri, client, record, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]), prepend=os.pathsep)
    command = [sys.executable, "-c", KILLED_DRIVER, uri, str(tmp_path / "artifacts"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout.readline() == "mirrored\n"
        driver.send_signal(signal.SIGKILL)
    assert [run.info.status for run in (parent(client), *children(client))] == ["RUNNING", "RUNNING"]
    make().reconcile()
    assert [run.info.status for run in (parent(client), *children(client))] == ["KILLED", "KILLED"]
    tracker = make()
    tracker.open("demo")
    tracker.mirror(record(3, "finished", config={"optim.lr": 0.1}))
    tracker.close("demo")
    assert steps(client, children(client)[0]) == [1, 2, 3]
    assert (parent(client).info.status, parent(client).data.tags["transkd.status"]) == ("FINISHED", "finished")


@pytest.mark.slow
@pytest.mark.parametrize("size", [50_000, 200_000, 400_000])
def test_a_kill_while_the_database_is_made_leaves_one_that_can_be(tmp_path, monkeypatch, size):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]), prepend=os.pathsep)
    uri, folder = f"sqlite:///{tmp_path}/new/mlflow.db", tmp_path / "new"
    program = "from pathlib import Path; from orchestrator.tracking.mlflow_server import Server; "
    program += f"Server({uri!r}, Path('a')).ask(); import time; time.sleep(600)"

    def largest():
        found = [0]
        for path in folder.glob("*mlflow.db*[!l]"):  # [!l]: but for SQLite's journal, which comes and goes
            with contextlib.suppress(FileNotFoundError):  # it has got its name in this moment
                found.append(path.stat().st_size)
        return max(found)

    with subprocess.Popen([sys.executable, "-c", program]) as driver:
        while driver.poll() is None and largest() <= size:
            time.sleep(0.002)
        driver.kill()
    assert driver.returncode == -signal.SIGKILL
    server = Server(uri, tmp_path / "artifacts")
    assert server.experiments("name = 'transkd/mine'") == {}
    assert server.experiment("transkd/mine", "mine")
    assert sorted(path.name for path in folder.iterdir()) == [".mlflow.db.lock", "mlflow.db"]


@pytest.mark.slow
def test_studies_that_start_at_once_on_a_new_store_share_its_database(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]), prepend=os.pathsep)
    uri, names = f"sqlite:///{tmp_path}/new/mlflow.db", ("one", "two", "three")
    program = "import sys; from pathlib import Path; from orchestrator.tracking.mlflow_server import Server; "
    program += f"server = Server({uri!r}, Path('a')); print(server.experiment('transkd/' + sys.argv[1], sys.argv[1]))"
    drivers = [subprocess.Popen([sys.executable, "-c", program, name]) for name in names]
    assert [driver.wait() for driver in drivers] == [0, 0, 0]
    found = Server(uri, tmp_path / "artifacts").experiments("name LIKE 'transkd/%'")
    assert found.keys() == {f"transkd/{name}" for name in names}


@pytest.mark.slow
def test_mlflow_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]), prepend=os.pathsep)
    program = (
        "import logging, sys; logging.basicConfig(level=logging.INFO)\n"
        "from pathlib import Path; from orchestrator.tracking.tracker import Tracker\n"
        "from orchestrator.tracking.mlflow_server import Server\n"
        "assert 'mlflow' not in sys.modules\n"
        "tracker = Tracker(Server(sys.argv[1], Path(sys.argv[2])), 'mine')\n"
        "tracker.open('demo'); tracker.files('demo', [Path(sys.argv[3])]); tracker.close('demo')\n"
    )
    fresh = f"sqlite:///{tmp_path}/fresh/mlflow.db"
    (tmp_path / "table.md").write_text("| arm |")
    command = [sys.executable, "-c", program, fresh, str(tmp_path / "artifacts"), str(tmp_path / "table.md")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert not (tmp_path / "mlruns").exists()


def test_a_run_that_has_not_begun_is_empty(tmp_path):
    record = Record("demo", "base", 0, "arm", LedgerRun("run0"), tmp_path / "absent")
    assert (record.points(()), record.files, record.per_class, record.summary) == ({}, [], {}, {})


def test_classes_are_those_of_the_last_validation(record):
    later = record(2)
    later.run.epochs.add("2026-01-01T00:03:00+00:00", {"epoch": 3, "loss": 0.1})
    assert later.per_class == {"road": 40.0}
