"""The life of a study in a bucket: begun on one machine, killed, finished on another, read on a third."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.objects.working_copy import opened

ROOT = Path(__file__).parents[4]
STUDY = """
name: tiny
base:
  data: {name: scenes, size: [64, 128], options: {train: 16, val: 8, size: [64, 128]}}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 1}}
  optim: {lr: 1.0e-3, epochs: 2, global_batch: 8, norm_batch: 4}
  distill: {csf: {}, pea: {}}
variants:
  TransKD-Base: {}
seeds: [0, 1]
"""


class Machine:
    """A machine of its own: no file of another is there."""

    def __init__(self, folder, address, env):
        self.folder, self.address = folder, address
        folder.mkdir()
        ours = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TRANSKD_STORE": address}
        self.env = {**os.environ, **env, **ours, "TRANSKD_CACHE": str(folder / "cache")}

    def start(self, *words):
        command = [sys.executable, "-m", "orchestrator", *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=self.env, cwd=self.folder, **pipes)

    def __call__(self, *words):
        process = self.start(*words)
        out, err = process.communicate(timeout=540)
        assert process.returncode == 0, err
        return out

    @property
    def ledger(self):
        (copy,) = (self.folder / "cache" / "stores").glob("*")
        return Ledger(copy / "ledger.jsonl")


@pytest.mark.slow
@pytest.mark.ray
def test_a_study_is_begun_here_and_finished_there(s3, tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY)
    address = s3.address()
    first, second, third = (Machine(tmp_path / name, address, s3.env) for name in ("first", "second", "third"))
    watching = Store(opened(address, tmp_path / "watching"))

    driver = first.start("run", file)
    end = time.monotonic() + 540
    while not any(event["event"] == "finished" for _, event in Ledger(watching.ledger).whole()):
        assert driver.poll() is None and time.monotonic() < end, driver.communicate()
        time.sleep(0.2)
        watching.shared.refresh()
    driver.send_signal(signal.SIGSTOP)  # it is there as long as it is asked about
    assert "driver: pid" in third("status", file)
    driver.kill()
    driver.communicate()

    assert "3 runs" in second("run", file)
    events = [event for _, event in second.ledger.whole()]
    ends = [event["run_id"] for event in events if event["event"] == "finished"]
    assert len(ends) == len(set(ends)) == 3, "what the first machine has finished is not trained again"
    table = third("report", file)
    assert "TransKD-Base" in table and "2" in table
    assert [event for _, event in third.ledger.whole()] == events
    (report,) = (third.folder / "cache" / "stores").glob("*/studies/tiny/report.html")
    assert report.stat().st_size > 10_000
    assert "3 finished; driver: none" in third("status", file)
