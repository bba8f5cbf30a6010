"""A run with a range of workers goes on with fewer when a machine is lost and with more when one comes."""

import json
from itertools import groupby

import pytest
import torch

from orchestrator.store.ledger import Ledger
from trainer.config import parse
from trainer.files import checkpoint
from trainer.place import Place
from trainer.training.loop import fit

pytestmark = [pytest.mark.slow, pytest.mark.ray]

LOST_AFTER, EPOCHS = 2, 40

ELASTIC = f"""
import json, os, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

small = {{"num_cpus": 1, "memory": 64 * 2**20}}  # too little for the process of a trial, which is to outlive machines
machines = Cluster(initialize_head=True, head_node_args={{"num_cpus": 0}})
machines.add_node(**small)
lost = machines.add_node(**small)
machines.wait_for_nodes()
os.environ["RAY_ADDRESS"] = machines.address

import orchestrator.running.tuner as tuner
from ablations.study.schema import load
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.runs_left import unfinished
from orchestrator.running.growth import NAME
from orchestrator.store.folder import Store
from orchestrator.terminal.log_lines import Lines, StudyProgress
from orchestrator.tracking.mirror import Mirror
from rich.console import Console


def soon(config):
    from orchestrator.running import group_size, growth
    from orchestrator.running.trial import trial

    group_size.RESTART_S, growth.LOOK_S, growth.SETTLE_S = 0.0, 0.2, 1.0
    trial(config)


def workers():
    groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
    return sum("CPU" in bundle for group in groups if group["name"] != NAME for bundle in group["bundles"].values())


class Machines(Lines):
    def epoch(self, job, metrics):
        super().epoch(job, metrics)
        sizes.append((int(metrics["epoch"]), workers()))
        if metrics["epoch"] == {LOST_AFTER}:
            machines.remove_node(lost, allow_graceful=False)
        if [size for _, size in sizes[-2:]] == [1, 1] and not found:
            found.append(machines.add_node(**small))
        if {LOST_AFTER} < metrics["epoch"] and (sizes[-1][1] == 1 or not found):
            # epochs are short, and Ray needs its time: the longer it takes, the longer they are
            time.sleep(0.25 * (metrics["epoch"] - {LOST_AFTER}))


sizes, found = [], []
tuner.trial = soon
store = Store(Path(sys.argv[2]))
spec = ClusterSpec(address="auto", workers=(1, 2), micro_batch=4)
job = Launch(load(sys.argv[1]), spec, store, {{}})
job.prepare(lambda text: None)
with store.leases.study("elastic"):
    job.run(Mirror("elastic", store), lambda: Machines(Console(file=sys.stderr), StudyProgress(job.state)))
print(json.dumps([sizes, unfinished(job.state)]))
machines.shutdown()
"""


def test_a_run_goes_on_with_fewer_workers_and_with_more(driver, study, tmp_path):
    base = {
        "data": {"name": "scenes", "size": [32, 64], "options": {"train": 8, "val": 2, "size": [32, 64]}},
        "student": {"name": "segformer_tiny"},
        "optim": {"lr": 1.0e-3, "epochs": EPOCHS, "global_batch": 8, "norm_batch": 4},
    }
    done = driver.script(ELASTIC, study("elastic", base=base, variants={"plain": {}}, seeds=[0]), driver.store)
    assert done.code == 0, done.err
    sizes, unfinished = json.loads(done.out.splitlines()[-1])
    assert unfinished == {}
    assert [epoch for epoch, _ in sizes] == list(range(1, EPOCHS + 1)), "each epoch once"
    assert [size for size, _ in groupby(size for _, size in sizes)] == [2, 1, 2], sizes
    assert dict(sizes)[LOST_AFTER] == 2, sizes

    (run,) = Ledger(driver.store / "ledger.jsonl").outcomes().values()
    assert (run.status, run.attempts, run.failures) == ("finished", 2, {"lost": 1}), "growth is no attempt"
    assert [event["metrics"]["epoch"] for event in driver.events("epoch")] == list(range(1, EPOCHS + 1))
    assert run.environment["workers"] == 2

    alone = Place(out_dir=tmp_path / "alone", cache_dir=driver.store / "cache", device="cpu", micro_batch=4)
    fit(parse(run.config), alone, report=lambda *_: None)
    ours, theirs = (
        checkpoint.load(folder / "last.pt") for folder in (driver.store / "runs" / run.run_id, alone.out_dir)
    )
    assert all(torch.equal(ours["model"][name], tensor) for name, tensor in theirs["model"].items())
