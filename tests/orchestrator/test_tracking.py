"""MLflow mirrors the store: each point once, nothing left RUNNING, and an outage costs nothing."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.record import Record, RunInfo, flatten
from orchestrator.sender import Sender
from orchestrator.tracking import Tracker

CONFIG = {"optim": {"lr": 6.0e-5, "epochs": 4}, "distill": {}, "data": {"size": [96, 192]}, "student": {"name": "b0"}}

KILLED_DRIVER = """
import sys, time
from pathlib import Path
from orchestrator.record import RunInfo
from orchestrator.tracking import Tracker
uri, artifacts, run_dir = sys.argv[1:]
tracker = Tracker(uri, Path(artifacts), "mine")
run = RunInfo("demo", "base", 0, "arm", "key0", "run0", {"optim.lr": 0.1})
assert tracker.study("demo") and tracker.mirror(run, Path(run_dir), "running")
print("mirrored", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """For the processes that tests start, whatever folder they start in."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """An empty database, migrated once for all tests, through the door that a driver uses."""
    root = tmp_path_factory.mktemp("migrated")
    assert Tracker(f"sqlite:///{root}/new/mlflow.db", root / "artifacts", "mine").prepare()
    return root / "new" / "mlflow.db"


@pytest.fixture
def uri(migrated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def make(uri, tmp_path):
    """Trackers as successive drivers would make them: each knows only what the server tells."""
    return lambda owner="mine", **options: Tracker(uri, tmp_path / "artifacts", owner, **options)


@pytest.fixture
def client(uri):
    return MlflowClient(tracking_uri=uri)


def info(seed=0, **changes):
    fields = {"study": "demo", "arm": "base", "role": "arm", "config": CONFIG}
    return RunInfo(**{**fields, "seed": seed, "key": f"key{seed}", "run_id": f"run{seed}", **changes})


def write(folder, epochs, finished=False, **extra):
    """A run's folder with so many epochs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(json.dumps(CONFIG))
    rows = [
        {"epoch": e, "step": 10 * e, "loss": 1 / e, "val/miou": 10.0 * e, "val/iou/road": 20.0 * e, **extra}
        for e in range(1, epochs + 1)
    ]
    (folder / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        best = {"epoch": epochs, "val/miou": 10.0 * epochs}
        result = {"best": best, "complexity": {"params_m": 3.72, "size": [96, 192]}}
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "best.pt").write_bytes(b"weights")
        (folder / "panel.png").write_bytes(b"picture")
    return folder


def children(client, study="demo"):
    experiment = client.get_experiment_by_name(f"transkd/{study}")
    runs = client.search_runs([experiment.experiment_id], order_by=["tags.`mlflow.runName`"])
    return [run for run in runs if run.data.tags["transkd.role"] != "study"]


def parent(client, study="demo"):
    experiment = client.get_experiment_by_name(f"transkd/{study}")
    return next(r for r in client.search_runs([experiment.experiment_id]) if r.data.tags["transkd.role"] == "study")


def steps(client, run, metric="val/miou"):
    return [point.step for point in client.get_metric_history(run.info.run_id, metric)]


def everything(client):
    """All points of all runs, to compare before and after."""
    names = {name for run in children(client) for name in run.data.metrics}
    return {(r.data.tags["transkd.run_id"], n): steps(client, r, n) for r in children(client) for n in names}


def test_a_run_is_mirrored_whole(make, client, tmp_path):
    tracker = make()
    assert tracker.study("demo", "the plan", {"transkd.question": "why"})
    folder = tmp_path / "run0"
    for epoch in (1, 2, 3):
        assert tracker.mirror(info(), write(folder, epoch), "running")
        assert [run.info.status for run in children(client)] == ["RUNNING"]
    assert tracker.mirror(info(), write(folder, 4, finished=True), "finished")
    assert tracker.table("demo", "| arm |", "arm\n")
    assert tracker.close("demo")

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
    assert files == {"config.yaml", "epochs.jsonl", "result.json", "best.pt", "panel.png", "per_class_iou.json"}

    above = parent(client)
    assert (above.info.status, above.info.run_name) == ("FINISHED", "demo")
    assert above.data.tags["transkd.question"] == "why"
    assert {f.path for f in client.list_artifacts(above.info.run_id)} == {"plan.txt", "table.md", "table.csv"}
    assert not (tmp_path / "mlruns").exists()


def test_said_again_nothing_is_added(make, client, tmp_path):
    for _ in range(3):
        tracker = make()
        assert tracker.study("demo")
        for seed in range(2):
            assert tracker.mirror(info(seed), write(tmp_path / f"run{seed}", 3, finished=True), "finished")
        points = everything(client)
        assert len(children(client)) == 2
        assert points["run0", "val/miou"] == [1, 2, 3]
        assert {len(found) for (_, name), found in points.items() if name.startswith(("best/", "complexity/"))} == {1}


def test_a_run_resumed_three_times_is_one_run(make, client, tmp_path):
    folder = tmp_path / "run0"
    for attempt, epochs in enumerate((2, 1, 3), start=1):
        tracker = make()
        assert tracker.reconcile()
        assert tracker.study("demo")
        assert [run.info.status for run in children(client)] == ["KILLED"] * (attempt > 1)
        assert tracker.mirror(info(attempts=attempt), write(folder, epochs), "running")
    assert make().mirror(info(attempts=3), write(folder, 4, finished=True), "finished")
    (run,) = children(client)
    assert run.data.tags["transkd.attempts"] == "3"
    assert run.data.tags["transkd.status"] == "finished"
    assert steps(client, run) == [1, 2, 3, 4]
    assert run.info.status == "FINISHED"


def test_a_failed_run_says_why_and_may_finish_later(make, client, tmp_path):
    folder = write(tmp_path / "run0", 2)
    assert make().mirror(info(reason="loss/pea is nan at step 7"), folder, "failed")
    (run,) = children(client)
    assert (run.info.status, run.data.tags["transkd.reason"]) == ("FAILED", "loss/pea is nan at step 7")
    assert make().mirror(info(attempts=2), write(folder, 3, finished=True), "finished")
    (run,) = children(client)
    assert (run.info.status, run.data.tags["transkd.reason"]) == ("FINISHED", "")
    assert steps(client, run) == [1, 2, 3]


def test_a_stopped_trial_is_told_from_a_finished_one(make, client, tmp_path):
    assert make().mirror(info(role="trial"), write(tmp_path / "run0", 1), "stopped")
    (run,) = children(client)
    assert (run.info.status, run.data.tags["transkd.status"]) == ("KILLED", "stopped")


def test_a_run_of_two_studies_stands_under_both(make, client, tmp_path):
    folder = write(tmp_path / "run0", 2, finished=True)
    tracker = make()
    assert tracker.mirror(info(), folder, "finished")
    assert tracker.mirror(info(study="other", arm="reference"), folder, "finished")
    (other,) = children(client, "other")
    assert other.info.run_name == "reference seed 0"
    assert other.data.tags["mlflow.parentRunId"] == parent(client, "other").info.run_id
    assert steps(client, other) == steps(client, children(client)[0]) == [1, 2]


def test_what_is_not_a_number_is_named_and_left_out(make, client, tmp_path):
    folder = write(tmp_path / "run0", 2, **{"loss/pea": float("nan"), "loss/csf": float("inf")})
    assert make().mirror(info(), folder, "running")
    (run,) = children(client)
    assert "loss/pea" not in run.data.metrics
    assert "loss/csf" not in run.data.metrics
    assert "loss/pea at epoch 1: nan" in run.data.tags["transkd.not_finite"]


def test_long_runs_and_long_parameters_fit_the_limits(make, client, tmp_path):
    extra = {f"val/iou/class {n}": 1.0 for n in range(50)}
    config = {"options": {f"p{n}": n for n in range(230)}, "long": "x" * 7000}
    folder = write(tmp_path / "run0", 60, **extra)
    assert make().mirror(info(config=config, reason="y" * 9000), folder, "failed")
    (run,) = children(client)
    assert steps(client, run, "val/iou/class 49") == list(range(1, 61))
    assert len(run.data.params) == 231
    assert len(run.data.params["long"]) == 6000


def test_a_line_being_written_waits(make, client, tmp_path):
    folder = write(tmp_path / "run0", 2)
    with (folder / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 3, "step"')
    tracker = make()
    assert tracker.mirror(info(), folder, "running")
    assert steps(client, children(client)[0]) == [1, 2]
    assert tracker.mirror(info(), write(folder, 3), "running")
    assert steps(client, children(client)[0]) == [1, 2, 3]


def test_runs_of_another_store_are_left_alone(make, client, tmp_path):
    folder = write(tmp_path / "run0", 1)
    theirs = make("theirs")
    assert theirs.study("demo")
    assert theirs.mirror(info(), folder, "running")
    mine = make()
    assert mine.reconcile()
    assert mine.mirror(info(), folder, "finished")
    assert sorted(run.info.status for run in children(client)) == ["FINISHED", "RUNNING"]


def test_reconcile_spares_what_runs_now(make, client, tmp_path):
    tracker = make()
    for seed in range(2):
        assert tracker.mirror(info(seed), write(tmp_path / f"run{seed}", 1), "running")
    assert make().reconcile(running={"run1"})
    assert [run.info.status for run in children(client)] == ["KILLED", "RUNNING"]
    assert parent(client).info.status == "KILLED"


def test_a_run_deleted_by_hand_comes_back(make, client, tmp_path, caplog):
    tracker = make(pause_s=0.0)
    folder = write(tmp_path / "run0", 2)
    assert tracker.mirror(info(), folder, "running")
    client.delete_run(children(client)[0].info.run_id)
    assert not tracker.mirror(info(), write(folder, 3), "running")
    assert tracker.mirror(info(), folder, "running")
    assert steps(client, children(client)[0]) == [1, 2, 3]


def test_one_unreadable_run_does_not_hold_up_the_others(make, client, tmp_path, caplog):
    broken = write(tmp_path / "run0", 2)
    (broken / "epochs.jsonl").write_text("not json\n")
    tracker = make()
    with caplog.at_level(logging.WARNING):
        assert [tracker.mirror(info(0), broken, "running") for _ in range(3)] == [False] * 3
        assert tracker.mirror(info(1), write(tmp_path / "run1", 1), "running")
    assert len(caplog.records) == 1
    assert "JSONDecodeError" in caplog.text


def test_a_killed_driver_leaves_nothing_running(make, uri, client, tmp_path):
    folder = write(tmp_path / "run0", 2)
    command = [sys.executable, "-c", KILLED_DRIVER, uri, str(tmp_path / "artifacts"), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout.readline() == "mirrored\n"
        driver.send_signal(signal.SIGKILL)
    assert [run.info.status for run in (parent(client), *children(client))] == ["RUNNING", "RUNNING"]
    assert make().reconcile()
    assert [run.info.status for run in (parent(client), *children(client))] == ["KILLED", "KILLED"]
    tracker = make()
    assert tracker.study("demo")
    assert tracker.mirror(info(config={"optim.lr": 0.1}), write(folder, 3, finished=True), "finished")
    assert steps(client, children(client)[0]) == [1, 2, 3]


def test_no_server_is_one_warning_and_little_time(tmp_path, caplog):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        tracker = Tracker(f"http://127.0.0.1:{nobody.getsockname()[1]}", tmp_path / "artifacts", "mine")
        begin = time.monotonic()
        with caplog.at_level(logging.WARNING):
            assert not tracker.prepare()
            assert not any(tracker.mirror(info(), tmp_path, "running") for _ in range(1000))
        assert time.monotonic() - begin < 30
    assert [record.name for record in caplog.records] == ["orchestrator.tracking"]
    assert "transkd sync" in caplog.text


@pytest.mark.slow
def test_mlflow_says_nothing(uri, tmp_path):
    folder = write(tmp_path / "run0", 1, finished=True)
    program = (
        "import logging, sys; logging.basicConfig(level=logging.INFO)\n"
        "from pathlib import Path; from orchestrator.tracking import Tracker; from orchestrator.record import RunInfo\n"
        "import orchestrator.tracking; assert 'mlflow' not in sys.modules\n"
        "tracker = Tracker(sys.argv[1], Path(sys.argv[2]), 'mine')\n"
        "run = RunInfo('demo', 'base', 0, 'arm', 'key0', 'run0', {})\n"
        "assert tracker.prepare() and tracker.mirror(run, Path(sys.argv[3]), 'finished') and tracker.close('demo')\n"
    )
    fresh = f"sqlite:///{tmp_path}/fresh/mlflow.db"
    command = [sys.executable, "-c", program, fresh, str(tmp_path / "artifacts"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert not (tmp_path / "mlruns").exists()


def test_record_of_an_empty_folder(tmp_path):
    record = Record(tmp_path / "absent")
    assert (record.epochs, record.result, record.files, record.per_class, record.summary) == ([], {}, [], {}, {})


def test_record_takes_classes_from_the_last_validation(tmp_path):
    folder = write(tmp_path, 2)
    with (folder / "epochs.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": 3, "loss": 0.1}) + "\n")
    assert Record(folder).per_class == {"road": 40.0}


def test_a_tracker_works_on_the_senders_thread(make, client, tmp_path):
    sender, tracker = Sender(), make()
    folder = tmp_path / "run0"
    sender.send("study", lambda: tracker.study("demo"))
    for epoch in range(1, 6):
        write(folder, epoch)
        sender.send("run0", lambda: tracker.mirror(info(), folder, "running"))
    assert sender.flush(timeout_s=30)
    assert steps(client, children(client)[0]) == [1, 2, 3, 4, 5]


def test_sender_keeps_order_and_only_the_newest_of_a_name():
    sender = Sender()
    done = []
    sender.send("slow", lambda: (time.sleep(0.3), done.append("slow")))
    begin = time.monotonic()
    time.sleep(0.05)
    for epoch in range(10):
        sender.send("run0", lambda epoch=epoch: done.append(f"run0 {epoch}"))
        sender.send("run1", lambda epoch=epoch: done.append(f"run1 {epoch}"))
    assert time.monotonic() - begin < 0.2
    assert not sender.flush(timeout_s=0.01)
    assert sender.flush(timeout_s=10)
    assert done == ["slow", "run0 9", "run1 9"]


@pytest.fixture
def serve(migrated, tmp_path):
    """Starts a real MLflow server on a fixed port of its own; what it starts is ended with the test."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shutil.copy(migrated, tmp_path / "server.db")
    running = []

    def start():
        options = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--workers", "1"]
        options += ["--artifacts-destination", str(tmp_path / "served"), "--port", str(port)]
        with (tmp_path / "server.log").open("a") as log:
            command = [sys.executable, "-m", "mlflow", "server", *options]
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
        running.append(server)
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                return server
            except OSError:
                assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
                time.sleep(0.2)

    def stop(server):
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    yield f"http://127.0.0.1:{port}", start, stop
    for server in running:
        if server.poll() is None:
            stop(server)


@pytest.mark.slow
def test_a_server_killed_midway_costs_nothing_and_is_caught_up(serve, tmp_path, monkeypatch):
    uri, start, stop = serve
    monkeypatch.chdir(tmp_path)
    tracker = Tracker(uri, tmp_path / "unused", "mine", pause_s=1.0)
    server = start()
    folder = tmp_path / "run0"
    assert tracker.prepare()
    assert tracker.study("demo", "the plan")
    for epoch in (1, 2):
        assert tracker.mirror(info(), write(folder, epoch), "running")
    stop(server)
    for epoch in (3, 4):
        assert not tracker.mirror(info(), write(folder, epoch), "running")
    assert not tracker.mirror(info(), write(folder, 5, finished=True), "finished")
    assert not tracker.close("demo")

    start()
    client = MlflowClient(tracking_uri=uri)
    time.sleep(1.1)
    assert tracker.mirror(info(), folder, "finished")
    assert Tracker(uri, tmp_path / "unused", "mine").mirror(info(), folder, "finished")
    points = everything(client)
    assert points["run0", "val/miou"] == [1, 2, 3, 4, 5]
    assert points["run0", "best/val/miou"] == [0]
    (run,) = children(client)
    assert run.info.status == "FINISHED"
    assert "best.pt" in {file.path for file in client.list_artifacts(run.info.run_id)}
    assert (tmp_path / "served").exists()
    assert not (tmp_path / "unused").exists()
    assert not (tmp_path / "mlruns").exists()
