"""MLflow as a server: its page shows a study; a door before it asks for a password, and falls shut in mid-study."""

import base64
import contextlib
import http.client
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from ablations.study.schema import load
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.tracking.mirror import sync
from orchestrator.tracking.mlflow_server import Server
from orchestrator.tracking.run_record import Record
from orchestrator.tracking.tracker import Tracker

pytestmark = [pytest.mark.slow, pytest.mark.ray]

CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""Nothing but the page is asked for."""


@pytest.fixture(scope="module")
def served(_finished, tmp_path_factory, free_port) -> Iterator[int]:
    """The port of `transkd ui` on a copy of the finished study's store."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(_finished.driver.store, folder / "store")
    env = {**_finished.driver.env, "TRANSKD_STORE": str(folder / "store")}
    port = free_port()
    command = [sys.executable, "-m", "orchestrator", "ui", "--port", str(port)]
    with (folder / "ui.log").open("w+") as log:
        page = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            end = time.monotonic() + 240
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert page.poll() is None and time.monotonic() < end, (log.seek(0), log.read())
                time.sleep(0.2)
            yield port
        finally:
            # It starts children: they are of its group.
            os.killpg(page.pid, signal.SIGKILL)
            page.wait()


class Door(ThreadingHTTPServer):
    """Stands before a server, and lets in who has the password, while it is open."""

    daemon_threads = True

    def __init__(self, behind: int, password: str = "", port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Visitor)
        self.behind = behind
        self.unknown: tuple[str, ...] = ()
        self.last = b""
        """The door closes with the first request that says this."""
        self.wanted = f"Basic {base64.b64encode(f'me:{password}'.encode()).decode()}" if password else ""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """Refuse connections from now on."""
        self.shutdown()
        self.server_close()


class _Visitor(BaseHTTPRequestHandler):
    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.wanted and self.headers.get("Authorization") != self.server.wanted:
            self._answer(401, b"who are you?")
            return
        if any(part in self.path for part in self.server.unknown):
            self._answer(404, b"<title>404 Not Found</title>", "text/html")  # as MLflow's server answers
            return
        inner = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        kept = {name: text for name, text in self.headers.items() if name.lower() not in ("host", "authorization")}
        inner.request(self.command, self.path, body, kept)
        answer = inner.getresponse()
        if self.server.last and self.server.last in body:
            self.server.close()
        self._answer(answer.status, answer.read(), answer.headers.get_content_type())

    def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815

    def log_message(self, *words: object) -> None:
        """Nothing."""


@pytest.fixture
def door(served) -> Iterator[Door]:
    """A door that is open to everybody."""
    door = Door(served)
    yield door
    door.close()


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=[*QUIET])
        yield browser
        browser.close()


@pytest.mark.browser
def test_the_page_shows_the_study_as_a_tree_and_compares_two_runs(served, browser):
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{served}")
    experiment = client.get_experiment_by_name("transkd/tiny").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(120_000)
    root = f"http://127.0.0.1:{served}/#"
    page.goto(f"{root}/experiments/{experiment}/runs?workflowType=machine_learning&compareRunsMode=TABLE")
    name = page.locator(".ag-cell[col-id='attributes.`Run Name`']")
    study = name.filter(has=page.get_by_role("link", name="tiny", exact=True))
    study.wait_for()
    assert name.count() == 1, "the study's runs are below it"
    study.get_by_role("button").click()
    for child in ("teacher segformer_mini seed 0", "student alone", "TransKD-Base", "broken"):
        page.get_by_role("link", name=child, exact=True).wait_for()
    assert name.count() == 5, "the seeds are below their arms"
    name.filter(has=page.get_by_role("link", name="TransKD-Base", exact=True)).get_by_role("button").click()
    for child in ("TransKD-Base seed 0", "TransKD-Base seed 1"):
        page.get_by_role("link", name=child, exact=True).wait_for()
    assert name.count() == 7

    two = ("student alone seed 0", "TransKD-Base seed 0")
    ids = json.dumps([runs[name].info.run_id for name in two])
    page.goto("about:blank")
    page.goto(f'{root}/compare-runs?runs={ids}&experiments=["{experiment}"]')
    page.get_by_role("link", name="best/val/miou", exact=True).wait_for()
    for name in two:
        page.get_by_text(name, exact=True).first.wait_for()
        best = f"{runs[name].data.metrics['best/val/miou']:.3f}".rstrip("0").rstrip(".")
        page.get_by_text(best, exact=True).first.wait_for()
    page.close()


def test_a_password_is_mlflows_own_affair(served, tmp_path, monkeypatch):
    locked = Door(served, password="sesame")
    try:
        tracker = Tracker(Server(locked.uri, tmp_path), "mine")
        assert "401" in tracker.why_unreachable()
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "sesame")
        assert tracker.why_unreachable() == ""
        (tmp_path / "table.md").write_text("| arm |")
        tracker.open("locked")
        tracker.files("locked", [tmp_path / "table.md"])
        tracker.close("locked")
    finally:
        locked.close()
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{served}")
    (run,) = client.search_runs([client.get_experiment_by_name("transkd/locked").experiment_id])
    assert run.info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["table.md"]


def test_a_server_without_models_and_inputs_gets_the_runs_and_their_files(served, door, finished, tmp_path, caplog):
    door.unknown = ("logged-models", "log-inputs")
    store = Store(finished.driver.store)
    run = next(run for run in Ledger(store.ledger).outcomes().values() if run.status == "finished")
    with caplog.at_level(logging.WARNING):
        tracker = Tracker(Server(door.uri, tmp_path), "mine")
        for study in ("old", "older"):
            tracker.mirror(Record(study, "arm", 0, "arm", run, store.run_dir(run.run_id)))
    assert [record.getMessage() for record in caplog.records] == [
        "the tracking server is too old for dataset inputs; runs are sent without them",
        "the tracking server is too old for models; they are sent as files of their runs",
    ]
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{served}")
    experiment = client.get_experiment_by_name("transkd/old").experiment_id
    (sent,) = client.search_runs([experiment], "tags.`transkd.role` = 'arm'")
    assert sent.info.status == "FINISHED" and not sent.inputs.dataset_inputs
    for name in ("last", "best"):
        assert f"{name}/MLmodel" in {file.path for file in client.list_artifacts(sent.info.run_id, name)}
        folder = client.download_artifacts(sent.info.run_id, name, str(tmp_path))
        labels = mlflow.pyfunc.load_model(folder).predict(np.zeros((2, 64, 128, 3), np.uint8))
        assert labels.shape == (2, 64, 128)


def points(client: MlflowClient, study: str) -> dict[str, list[int]]:
    """Run name -> the steps of its loss, of an experiment that may not be there yet."""
    experiment = client.get_experiment_by_name(f"transkd/{study}")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    return {run.info.run_name: [p.step for p in client.get_metric_history(run.info.run_id, "loss")] for run in runs}


def test_an_outage_in_mid_study_costs_nothing_and_is_caught_up(served, free_port, driver, study, tmp_path, monkeypatch):
    base = {
        "data": {"name": "scenes", "size": [64, 128], "options": {"train": 16, "val": 8, "size": [64, 128]}},
        "student": {"name": "segformer_tiny"},
        "optim": {"lr": 1.0e-3, "epochs": 12, "global_batch": 8},
        "distill": {},
    }
    file = study("outage", base=base, variants={"alone": {}}, seeds=[0])
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{served}")
    port = free_port()
    door = Door(served, port=port)
    door.last = b'"loss"'  # with the first epochs of the run: what follows of it and of the study finds it shut
    driver.tracking = door.uri
    done = driver("run", file)
    assert done.code == 0, done.err
    assert "no tracking at" in done.err and "`transkd sync outage` sends it" in done.err
    assert points(client, "outage")["alone seed 0"], "it was open in the beginning"
    assert [epoch["epoch"] for epoch in driver.epochs(driver.events("finished")[0]["run_id"])] == list(range(1, 13))

    store = Store(driver.store)
    state = StudyState(load(str(file)), Ledger(store.ledger))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", door.uri)
    report = sorted((driver.store / "studies" / "outage").glob("table.*"))
    sent, left = sync(state, store, report)
    assert (sent, len(left)) == (0, 6), "still shut: the run, and what is said of the study"
    again = Door(served, port=port)
    try:
        for _ in range(2):
            assert sync(state, store, report) == (1, set())
            assert points(client, "outage") == {"outage": [], "alone seed 0": list(range(1, 13))}
    finally:
        again.close()
    statuses = {
        run.info.status for run in client.search_runs([client.get_experiment_by_name("transkd/outage").experiment_id])
    }
    assert statuses == {"FINISHED"}
