"""Two studies on one Ray cluster, which has room for one run at once: they take turns, and wait without failures."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ray]

PATIENCE_S = 240
IDLE = """
import sys, time
import ray
from orchestrator.running.shares.share_keeper import NAME, NAMESPACE, SILENT_S

ray.init(address=sys.argv[1], log_to_driver=False)
end = time.monotonic() + 3 * SILENT_S
while any(actor["name"] == NAME for actor in ray.util.list_named_actors(all_namespaces=True)):
    assert time.monotonic() < end, "the keeper is still there"
    time.sleep(0.5)
"""


@pytest.fixture
def cluster(driver, monkeypatch):
    """The address of a Ray head with one CPU; it ends with the driver's processes, whose environment it has."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # the head is this test's alone
    # Not pytest's tmp_path: Ray's sockets live here, and a Unix socket's path ends at 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1"),
        *("--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false"),
        *(f"--object-store-memory={100 * 2**20}", f"--temp-dir={folder}"),
    ]
    log = folder / "head.log"
    with log.open("w") as out:
        head = subprocess.Popen(command, env=driver.env, stdout=out, stderr=subprocess.STDOUT)
    end = time.monotonic() + PATIENCE_S
    while "Ray runtime started" not in log.read_text():
        assert head.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.2)
    yield f"127.0.0.1:{port}"
    driver.end()
    head.wait(timeout=PATIENCE_S)
    shutil.rmtree(folder, ignore_errors=True)


def test_two_studies_take_turns_and_the_one_that_waits_says_so(driver, study, cluster, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"address: {cluster}\ncohort: 'off'\n")
    base = {
        "data": {"name": "scenes", "size": [64, 128], "options": {"train": 16, "val": 8, "size": [64, 128]}},
        "student": {"name": "segformer_tiny"},
        "optim": {"lr": 1.0e-3, "epochs": 2, "global_batch": 8, "norm_batch": 4},
    }
    rates = {f"rate {rate}": {"optim.lr": rate} for rate in (2.0e-3, 3.0e-3, 4.0e-3)}
    queue = 40 * len(rates)  # more runs than the first study can end while the second one starts
    one = study("one", base=base, variants=rates, seeds=40)
    two = study("two", base=base, variants={"plain": {}}, seeds=1)
    first = driver.start("run", one, "--cluster", spec)

    def wait_for_runs_of_the_first(many):
        end = time.monotonic() + PATIENCE_S
        while sum(event["arm"] in rates for event in driver.events("finished")) < many:
            assert first.poll() is None and time.monotonic() < end, first.communicate()
            time.sleep(0.05)

    wait_for_runs_of_the_first(1)
    second = driver("run", two, "--cluster", spec)
    assert second.code == 0, second
    assert "waiting for 1 CPU: 1 study ahead uses 1" in second.out
    had = sum(event["arm"] in rates for event in driver.events("finished"))
    assert had < queue, "the second waited until the queue of the first had ended"
    wait_for_runs_of_the_first(had + 1)
    assert not driver.events("failed", "interrupted", "retried")
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 130, said
    idle = driver.script(IDLE, cluster)
    assert idle.code == 0, idle.err
