"""A GPU that has failed is held: Ray gives it to no further process, and the others of its machine are used."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

STUDY = """
import json, os, sys, time
import ray
from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import LAUNCH
from orchestrator.running.machines.machine_watch import MachineWatch
from orchestrator.running.machines.this_machine import gpu_failed
from orchestrator.running.machines.avoided import listed, machines_for
from trainer.files.failure import Failure

gpus, amount, failing = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3].split(",")
ray.init(num_cpus=16, num_gpus=gpus, include_dashboard=False, log_to_driver=False)
JOB = {"launch": LAUNCH, "resources": {"CPU": 1, "GPU": amount}, "group_sizes": [1]}

@ray.remote(num_cpus=1, num_gpus=amount)
class Run:
    def gpus(self):
        return sorted(map(str, ray.get_gpu_ids()))
    def fail(self):
        gpu_failed(JOB, Failure("device", "CUDA error: uncorrectable ECC error encountered"))
        os._exit(1)

runs = [Run.remote() for _ in range(int(gpus / amount))]
had = ray.get([run.gpus.remote() for run in runs])
idle = [run for run, ids in zip(runs, had) if ids == ["0"] and "0" not in failing]
bad = [run for run, ids in zip(runs, had) if ids[0] in failing]
for run in idle:  # a GPU that is free before the other fails is the first that Ray gives out
    ray.kill(run)
watch = MachineWatch(ClusterSpec(cpus_per_worker=1, gpus_per_worker=amount))
said = []
for run in bad:
    try:
        ray.get(run.fail.remote())
    except ray.exceptions.RayActorError:
        pass
    del run
runs = [run for run in runs if run not in bad and run not in idle]
del bad
while not all(each.held for each in listed(LAUNCH).values()):
    said += watch.look()
    time.sleep(0.1)
said += watch.look()
assert machines_for(JOB) == {}, "the machine takes runs"
for run in runs:
    ray.kill(run)
again = []
seen = set()
while len(again) < (gpus - len(failing)) / amount:
    run = Run.remote()
    seen |= set(ray.get(run.gpus.remote(), timeout=60))
    again.append(run)
more = Run.remote()
ready, _ = ray.wait([more.gpus.remote()], timeout=3)
print("SEEN", json.dumps([said, sorted(seen), bool(ready)]))
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(
    ("gpus", "amount", "failing", "left"),
    [(2, 1, "0", ["1"]), (4, 1, "1,2", ["0", "3"]), (2, 0.5, "1", ["0"])],
)
def test_a_failed_gpu_is_given_to_no_further_run(gpus: int, amount: float, failing: str, left: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", STUDY, str(gpus), str(amount), failing], capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 0, ran.stderr
    (seen,) = re.findall("^SEEN (.*)", ran.stdout, re.MULTILINE)
    said, gpus_of_runs, one_more = json.loads(seen)
    assert gpus_of_runs == left
    assert not one_more
    assert len(said) == len(failing.split(","))
    for line in said:
        assert re.search(r"gives no more runs to .* \(CUDA error: uncorrectable ECC error encountered\)$", line)
