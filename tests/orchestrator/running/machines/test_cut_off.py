"""The run of a machine that is cut off goes on elsewhere; the process that still trains it there doubles no epoch."""

import os
import shutil
import subprocess

import pytest

from orchestrator.store.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.ray]

NAME = f"tk{os.getpid()}"
NETWORK = os.getpid() % 2**14  # this test may run twice on a machine, in two checkouts
HEAD, FAR = (f"10.213.{NETWORK // 64}.{4 * (NETWORK % 64) + host}" for host in (1, 2))
CUT_AFTER, EPOCHS = 2, 30

CUT = f"""
import os, subprocess, sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster

# a machine that does not answer is lost after 15 seconds instead of a minute
quick = {{"health_check_period_ms": 1000, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 5}}
machines = Cluster(
    initialize_head=True, head_node_args={{"num_cpus": 0, "node_ip_address": "{HEAD}", "_system_config": quick}}
)
far = [*"ip netns exec {NAME}".split(), sys.executable, "-m", "ray.scripts.scripts", "start"]
far += f"--address={{machines.address}} --node-ip-address={FAR} --num-cpus=1 --block".split()
far = subprocess.Popen(far, stdout=subprocess.DEVNULL)
while len(machines.global_state.node_table()) < 2:
    time.sleep(0.2)
os.environ["RAY_ADDRESS"] = machines.address

from ablations.study.schema import load
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.runs_left import unfinished
from orchestrator.store.folder import Store
from orchestrator.terminal.log_lines import Lines, StudyProgress
from orchestrator.tracking.mirror import Mirror
from rich.console import Console


def link(state):
    subprocess.run(["ip", "link", "set", "{NAME}", state], check=True)


class Cable(Lines):
    def epoch(self, job, metrics):
        super().epoch(job, metrics)
        if metrics["epoch"] == {CUT_AFTER}:
            link("down")
            machines.add_node(num_cpus=1, node_ip_address="{HEAD}", wait=False)

    def started(self, job):
        super().started(job)
        starts.append(job)
        if len(starts) == 2:  # elsewhere, where it waits for the process that was cut off
            threading.Timer(5, link, ["up"]).start()


starts = []
store = Store(Path(sys.argv[2]))
job = Launch(load(sys.argv[1]), ClusterSpec(address="auto", concurrency=1), store, {{}})
job.prepare(lambda text: None)
try:
    with store.leases.study("cut"):
        job.run(Mirror("cut", store), lambda: Cable(Console(file=sys.stderr), StudyProgress(job.state)))
finally:
    far.kill()
print(len(starts), unfinished(job.state))
machines.shutdown()
"""


@pytest.fixture
def cable():
    """Two hosts of one machine: this one, and a network namespace at the other end of a cable."""
    if shutil.which("ip") is None or subprocess.run(["ip", "netns", "add", NAME], check=False).returncode != 0:
        pytest.skip("network namespaces need ip and its permission")
    there = f"ip netns exec {NAME} ip"
    try:
        for command in (
            f"ip link add {NAME} type veth peer name far netns {NAME}",
            f"ip addr add {HEAD}/30 dev {NAME}",
            f"ip link set {NAME} up",
            f"{there} addr add {FAR}/30 dev far",
            f"{there} link set far up",
            f"{there} link set lo up",
        ):
            if subprocess.run(command.split(), check=False).returncode != 0:
                pytest.skip(f"a cable between network namespaces cannot be had: {command}")
        yield
    finally:
        subprocess.run(["ip", "link", "del", NAME], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "netns", "del", NAME], check=True)


@pytest.mark.usefixtures("cable")
def test_a_run_of_a_machine_that_is_cut_off_goes_on_elsewhere_with_each_epoch_once(driver, study):
    base = {
        "data": {"name": "scenes", "size": [32, 64], "options": {"train": 8, "val": 2, "size": [32, 64]}},
        "student": {"name": "segformer_tiny"},
        "optim": {"lr": 1.0e-3, "epochs": EPOCHS, "global_batch": 4},
    }
    done = driver.script(CUT, study("cut", base=base, variants={"plain": {}}, seeds=[0]), driver.store)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "2 {}"
    (run,) = Ledger(driver.store / "ledger.jsonl").outcomes().values()
    assert (run.status, run.attempts, run.failures) == ("finished", 2, {"lost": 1})
    told = [event["metrics"]["epoch"] for event in driver.events("epoch")]
    assert sorted(told) == list(range(1, EPOCHS + 1)), "each epoch once"
    assert [epoch["epoch"] for epoch in driver.epochs(run.run_id)] == list(range(1, EPOCHS + 1))
