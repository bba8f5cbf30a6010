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
from orchestrator.running.machines.avoided import listed, machines_for
from orchestrator.running.machines.machine_watch import MachineWatch
from orchestrator.running.machines.this_machine import gpu_failed
from trainer.files.failure import Failure

gpus, amount, failing, idle, reason = json.loads(sys.argv[1])
ray.init(address="local", num_cpus=16, num_gpus=gpus, include_dashboard=False, log_to_driver=False)
job = {"launch": LAUNCH, "resources": {"CPU": 1, "GPU": amount}, "group_sizes": [1]}
watch, said = MachineWatch(ClusterSpec(cpus_per_worker=1, gpus_per_worker=amount)), []

@ray.remote(num_cpus=1, num_gpus=amount)
class Run:
    def gpus(self):
        return sorted(map(str, ray.get_gpu_ids()))
    def fail(self):
        gpu_failed(LAUNCH, Failure("device", reason))
        os._exit(1)

def gpus_of_runs(count):
    \"\"\"The GPUs that so many new runs get, and whether there is room for one more.\"\"\"
    runs = [Run.remote() for _ in range(count)]
    had = ray.get([run.gpus.remote() for run in runs], timeout=60)
    more = Run.remote()
    ready, _ = ray.wait([more.gpus.remote()], timeout=2)
    for run in (*runs, more):
        ray.kill(run)
    return sorted(gpu for each in had for gpu in each), bool(ready)

runs = {"+".join(ray.get(run.gpus.remote())): run for run in [Run.remote() for _ in range(int(gpus / amount))]}
for which in idle:  # a GPU that is free before the other fails is the first that Ray gives out
    ray.kill(runs.pop(which))
seen = []
for which in failing:
    try:
        ray.get(runs.pop(which).fail.remote())
    except ray.exceptions.RayActorError:
        pass
    end = time.monotonic() + 30
    while time.monotonic() < end and not all(each.held for each in listed(LAUNCH).values()):
        said += watch.look()
        time.sleep(0.1)
        if not any(each.shut for each in listed(LAUNCH).values()):
            break
    seen.append([each.held for each in listed(LAUNCH).values()])
assert machines_for(job) == {}, "there is no other machine"
for run in runs.values():
    ray.kill(run)
left = gpus - sum(len(each.gpus) for each in listed(LAUNCH).values() if each.held)
print("SEEN", json.dumps([said, seen, *gpus_of_runs(int(left / amount))]))
"""
ECC, ASYNC = "CUDA error: uncorrectable ECC error encountered", "CUDA error: unspecified launch failure"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(
    ("study", "held", "left"),
    [
        ((4, 1, ["1", "2"], ["0"], ECC), [[True], [True, True]], ["0", "3"]),
        ((4, 2, ["0+1"], [], ECC), [[True]], ["2", "3"]),
        ((2, 1, ["0", "1"], [], ECC), [[True], [False, False]], ["0", "1"]),  # a study needs one
        ((2, 1, ["1"], [], ASYNC), [[False]], ["0", "1"]),  # a program's mistake says this too
    ],
)
def test_a_failed_gpu_is_given_to_no_further_run(study: tuple, held: list[list[bool]], left: list[str]) -> None:
    ran = subprocess.run([sys.executable, "-c", STUDY, json.dumps(study)], capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    (line,) = re.findall("^SEEN (.*)", ran.stdout, re.MULTILINE)
    said, seen, gpus_of_runs, one_more = json.loads(line)
    assert seen == held
    assert (gpus_of_runs, one_more) == (left, False)
    failing, reason = study[2], study[4]
    assert sum(each.endswith(f"failed ({reason})") for each in said) == len(failing)
    assert sum("gets runs again, but on GPU" in each for each in said) == sum(any(each) for each in held)
