"""Queued runs bring machines up, from none to as many as the limit; idle machines go."""

import subprocess
import sys
import time

import pytest

STUDY = """
import time
from pathlib import Path
import ray
from ray import tune

def run(config):
    deadline = time.monotonic() + 60
    Path(config["folder"], str(config["number"])).touch()
    while len(list(Path(config["folder"]).iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)  # two at once, so that one machine is not enough
    return {"score": config["number"], "machine": ray.get_runtime_context().get_node_id()}

ray.init(address="auto", log_to_driver=False)
results = tune.Tuner(
    tune.with_resources(run, {"CPU": 1}),
    param_space={"number": tune.grid_search([0, 1, 2]), "folder": FOLDER},
    run_config=tune.RunConfig(name="study", storage_path=STORE, verbose=0),
).fit()
assert not results.errors, results.errors
print("scores", sorted(result.metrics["score"] for result in results))
print("machines", len({result.metrics["machine"] for result in results}))
"""


@pytest.mark.slow
def test_queued_runs_bring_machines_up_and_idle_machines_go(fake_autoscaling_cluster, tmp_path):
    cluster = fake_autoscaling_cluster
    assert cluster.machines() == 0
    seen = tmp_path / "seen"
    seen.mkdir()
    script = STUDY.replace("FOLDER", repr(str(seen))).replace("STORE", repr(str(tmp_path / "store")))
    with (tmp_path / "study.log").open("w") as log:
        study = subprocess.Popen([sys.executable, "-c", script], env=cluster.env, stdout=log, stderr=subprocess.STDOUT)
        most = 0
        end = time.monotonic() + 150
        while study.poll() is None and time.monotonic() < end:
            most = max(most, cluster.machines())
            time.sleep(0.5)
        if study.poll() is None:
            study.kill()
    output = (tmp_path / "study.log").read_text()
    assert study.returncode == 0, output
    assert "scores [0, 1, 2]" in output
    assert "machines 2" in output
    assert most == 2
    cluster.wait_for(lambda: cluster.machines() == 0, timeout_s=60, what="the empty cluster")
