"""`transkd ui` before its server starts: what it refuses, and the address that it prints."""

import socket
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from orchestrator.store.folder import Store
from orchestrator.tracking.mlflow_server import Server
from orchestrator.tracking.tracker import Tracker

IN_A_MOUNT = """
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"
"""
"""Runs a command in a namespace where a folder is read-only."""


@pytest.fixture
def store(driver):
    store = Store(driver.store)
    tracker = Tracker(Server(store.mlflow_uri, store.artifacts), store.identity)
    tracker.open("demo_search")
    return store


def test_a_store_that_does_not_exist_is_refused_and_not_made(driver, tmp_path):
    done = driver.here("ui", "--store", tmp_path / "nowhere")
    assert done.code == 2 and f"no study has run in store {tmp_path}/nowhere" in done.err
    assert not (tmp_path / "nowhere").exists()


def test_a_taken_port_is_refused(driver):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = driver.here("ui", "--port", taken.getsockname()[1])
    assert done.code == 2 and "cannot be used (Address already in use); choose another" in done.err


def test_the_address_is_that_of_the_study_in_the_training_view(driver, store, monkeypatch):
    found = []
    monkeypatch.setattr("os.execve", lambda program, words, env: found.append((words, env)) or exit(0))
    experiment = MlflowClient(tracking_uri=store.mlflow_uri).get_experiment_by_name("transkd/demo_search")
    runs = f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    said = driver.here("ui", "demo_search", "--port", 5999).out
    assert said == f"MLflow: http://127.0.0.1:5999{runs} (Ctrl-C ends it)\n"
    assert "/#/experiments?workflowType=machine_learning" in driver.here("ui", "--port", 5999).out, "none has run yet"
    for words, env in found:
        assert words[-4:] == ["--host", "127.0.0.1", "--port", "5999"]
        assert env["MLFLOW_BACKEND_STORE_URI"] == store.mlflow_uri
        assert not [word for word in words if store.mlflow_uri in word], "other users see command lines"


@pytest.mark.slow
def test_a_read_only_store_is_reported_and_planned(driver, store, tmp_path):
    """As on a mounted disk: nothing is written into it."""
    probe = ["unshare", "-m", "bash", "-c", IN_A_MOUNT, "-", str(store.root), "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a folder read-only")
    store.ledger.write_text('{"event": "study", "study": "demo_search", "time": "2026-01-01T00:00:00+00:00"}\n')
    python = [sys.executable, "-m", "orchestrator"]
    for words in (["status"], ["list"], ["report", "demo_search"], ["plan", "demo_search", "--no-probe"]):
        command = ["unshare", "-m", "bash", "-c", IN_A_MOUNT, "-", str(store.root), *python, *words]
        env = {**driver.env, "TRANSKD_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo_search-report" / "report.html").exists()
