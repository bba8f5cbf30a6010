"""A machine that joins a cluster without the store takes no run: it is named, and no run has failed or used a retry."""

import shutil
import subprocess

import pytest

from orchestrator.store.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.ray]

MOUNTS = ["unshare", "--map-root-user", "--mount"]
"""Starts a process with mounts of its own."""

JOINED = """
import os, subprocess, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster

machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
machines.add_node(num_cpus=1)
machines.wait_for_nodes()
os.environ["RAY_ADDRESS"] = machines.address

import orchestrator.running.tuner as tuner
from ablations.study.schema import load
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.runs_left import unfinished
from orchestrator.store.folder import Store
from orchestrator.terminal.log_lines import Lines, StudyProgress
from orchestrator.tracking.mirror import Mirror
from rich.console import Console

store = Store(Path(sys.argv[2]))
ports = "--min-worker-port=0 --max-worker-port=0"
start = f"{sys.executable} -m ray.scripts.scripts start --address={machines.address} --num-cpus=1 {ports} --block"
hidden = [*sys.argv[3:], "sh", "-c", f"mount -t tmpfs none {store.root} && exec {start}"]
joined, PATIENCE_S = [], 240


def held(config):
    from orchestrator.running.trial import trial

    root = Path(config["jobs"][0]["place"]["out_dir"]).parents[1]
    end = time.monotonic() + PATIENCE_S
    # the run of the machine with the store trains when the other one was named; the next run waits for a machine
    while (root / "identity").exists() and not (root / "named").exists() and time.monotonic() < end:
        time.sleep(0.1)
    trial(config)


class Joining(Lines):
    def started(self, job):
        super().started(job)
        if not joined:
            joined.append(subprocess.Popen(hidden, stdout=subprocess.DEVNULL))

    def tell(self, text):
        super().tell(text)
        (store.root / "named").touch()


tuner.trial = held
job = Launch(load(sys.argv[1]), ClusterSpec(address="auto", max_cpus=2, cpus_per_machine=1), store, {})
job.prepare(lambda text: None)
try:
    with store.leases.study("joined"):
        job.run(Mirror("joined", store), lambda: Joining(Console(file=sys.stderr), StudyProgress(job.state)))
finally:
    joined[0].kill()
print(unfinished(job.state))
machines.shutdown()
"""

BASE = {
    "data": {"name": "scenes", "size": [32, 64], "options": {"train": 8, "val": 2, "size": [32, 64]}},
    "student": {"name": "segformer_tiny"},
    "optim": {"lr": 1.0e-3, "epochs": 2, "global_batch": 4},
}


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*MOUNTS, "true"], check=False).returncode != 0,
    reason="mounts of a process's own need unshare and its permission",
)
def test_a_machine_without_the_store_is_named_and_costs_no_run_an_attempt(driver, study):
    file = study("joined", base=BASE, variants={"plain": {}}, seeds=[0, 1])
    done = driver.script(JOINED, file, driver.store, *MOUNTS)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "{}"
    named = [line for line in done.err.splitlines() if "gets no runs" in line]
    assert len(named) == 1, done.err
    assert f"the driver's store {driver.store} is not there; mount it there, and start Ray there again" in named[0]
    runs = Ledger(driver.store / "ledger.jsonl").outcomes().values()
    assert [(run.status, run.attempts, run.failures) for run in runs] == [("finished", 1, {})] * 2
