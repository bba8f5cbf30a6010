"""The head of Ray is killed under a study: it is closed, says what to do, and goes on when a head is there again."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.running.machines.head_watch import EXIT_CODE
from orchestrator.running.ray_session import CLOSING_S
from orchestrator.store.ledger import Ledger

ROOT = Path(__file__).parents[2]

PATIENCE_S = CLOSING_S / 2
"""Ray itself would end the driver after `CLOSING_S`."""

SLOW = """
name: slow
base:
  data: {name: scenes, size: [64, 128], options: {train: 16, val: 8, size: [64, 128]}}
  student: {name: segformer_tiny}
  optim: {lr: 1.0e-3, epochs: 2000, global_batch: 8}
variants: {one: {}}
"""


def events(store, kind):
    written = (event for _, event in Ledger(store / "ledger.jsonl").whole())
    return [event for event in written if event["event"] == kind]


def gcs_server(folder):
    """The id of the process that runs the head of the cluster in a folder."""
    listed = subprocess.check_output(["ps", "-eo", "pid,args", "-ww"], text=True).splitlines()
    (found,) = [line.split()[0] for line in listed if "/gcs_server " in line and str(folder) in line]
    return int(found)


@pytest.mark.slow
@pytest.mark.ray
def test_a_study_whose_head_is_killed_is_closed_with_one_line(head, short_folder, surroundings, tmp_path):
    store, study, spec = tmp_path / "store", tmp_path / "slow.yaml", tmp_path / "spec.yaml"
    study.write_text(SLOW)
    pid = gcs_server(short_folder)
    port = next(w.partition("=")[2] for w in _words(pid) if w.startswith("--gcs_server_port="))
    spec.write_text(f"address: 127.0.0.1:{port}\n")
    words = (sys.executable, "-m", "orchestrator", "run", study, "--cluster", spec, "--store", store)
    env = {**surroundings, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    driver = subprocess.Popen([str(word) for word in words], env=env, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True)
    try:
        end = time.monotonic() + 540
        while not events(store, "epoch"):
            assert driver.poll() is None and time.monotonic() < end, driver.communicate()
            time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        out, err = driver.communicate(timeout=PATIENCE_S)
    finally:
        driver.kill()
    assert driver.returncode == EXIT_CODE, out + err
    (line,) = err.splitlines()
    assert line.startswith("stopped: the head of Ray at ") and line.endswith("run the same command to go on")
    assert len(events(store, "interrupted")) == 1
    with sqlite3.connect(store / "mlflow.db") as database:
        assert database.execute("select count(*) from runs where status = 'RUNNING'").fetchone() == (0,)


def _words(pid):
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
