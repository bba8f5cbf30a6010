"""Queued runs of a study bring machines up, from none to as many as the limit; idle machines go."""

import functools
import operator
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.store.ledger import Ledger

ROOT = Path(__file__).parents[2]

STUDY = """
name: scaled
base:
  data: {name: scenes, size: [64, 128], options: {train: 16, val: 8, size: [64, 128]}}
  student: {name: segformer_tiny}
  optim: {lr: 1.0e-3, epochs: 2, global_batch: 8}
variants: {slow: {}, fast: {optim.lr: 3.0e-3}}
seeds: 2
"""

SPEC = """
address: auto
cpus_per_worker: 1
max_cpus: 2
cpus_per_machine: 1
"""

SIZES = """
address: auto
overrides:
  wide: {cpus_per_worker: 2}
  needs a GPU: {gpus_per_worker: 1}
machine_types:
  small: {cpus: 1, most: 3}
  large: {cpus: 2, most: 3}
  gpu: {cpus: 1, gpus: 1, most: 3}
retries: {bug: 0, device: 0}
"""


@pytest.fixture
def run_study(tmp_path):
    """run_study(machines, study, spec, look): `transkd run` on these machines to its end, for at most 540 s, while
    `look` is called twice a second. Returns the exit code and what it printed."""

    def run(machines, study, spec, look=lambda: None):
        (tmp_path / "study.yaml").write_text(study)
        (tmp_path / "spec.yaml").write_text(spec)
        words = ("run", tmp_path / "study.yaml", "--cluster", tmp_path / "spec.yaml", "--store", tmp_path / "store")
        with (tmp_path / "study.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator", *map(str, words)],
                env={**machines.env, "PYTHONPATH": str(ROOT)},
                cwd=tmp_path,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            end = time.monotonic() + 540
            while process.poll() is None and time.monotonic() < end:
                look()
                time.sleep(0.5)
            if process.poll() is None:
                process.kill()
        return process.wait(), (tmp_path / "study.log").read_text()

    return run


@pytest.fixture
def ledger(tmp_path):
    """The ledger that `run_study` writes."""
    return Ledger(tmp_path / "store" / "ledger.jsonl")


@pytest.mark.slow
@pytest.mark.ray
def test_runs_of_three_sizes_bring_up_the_machines_that_they_need_and_no_others(
    machines_of_three_types, run_study, ledger
):
    """The machine with a GPU is one by its word alone, so that its run comes as far as to the first use of it."""
    machines = machines_of_three_types
    arms = "{narrow: {}, wide: {optim.lr: 1.0e-4}, needs a GPU: {optim.lr: 3.0e-4}}"
    study = STUDY.replace("{slow: {}, fast: {optim.lr: 3.0e-3}}", arms).replace("seeds: 2", "seeds: 1")
    seen = []
    code, output = run_study(machines, study, SIZES, lambda: seen.append(machines.machine_sizes()))
    most, needed = functools.reduce(operator.or_, seen), Counter({(1, 0): 1, (2, 0): 1, (1, 1): 1})
    assert most.keys() == needed.keys(), output
    # on a busy machine Ray may count a run as waiting for a moment after it has its place, and start another machine
    assert not most - needed - needed, output
    runs = {run.members[0].arm: run for run in ledger.outcomes().values()}
    assert {arm for arm, run in runs.items() if run.status == "finished"} == {"narrow", "wide"}, output
    assert [runs[arm].environment["threads"] for arm in ("narrow", "wide")] == [1, 2]
    assert "needs a CUDA GPU" in runs["needs a GPU"].reason and code == 1, output
    machines.wait_for(lambda: machines.machines() == 0, timeout_s=240, what="the empty cluster")


@pytest.mark.slow
@pytest.mark.ray
def test_workers_that_wait_for_machines_spend_no_retries(fake_autoscaling_cluster, run_study, ledger):
    """A group of workers keeps its place in the queue until its machines have started, and no retry is spent."""
    machines = fake_autoscaling_cluster
    study = STUDY.replace("slow: {}, ", "").replace("seeds: 2", "seeds: 1")
    study = study.replace("_batch: 8", "_batch: 8, norm_batch: 4")
    code, output = run_study(machines, study, f"{SPEC}workers: 2\nretries: {{lost: 0}}\n")
    assert code == 0, output
    events = [event for _, event in ledger.whole()]
    assert [event["event"] for event in events if event["event"] not in ("study", "epoch")] == ["started", "finished"]
    said = [line.split(maxsplit=1)[1] for line in output.splitlines() if "fast seed 0: " in line]
    assert said[0] == "fast seed 0: waiting for resources" and said[1] == "fast seed 0: started", said


@pytest.mark.slow
@pytest.mark.ray
def test_queued_runs_bring_machines_up_and_idle_machines_go(fake_autoscaling_cluster, run_study, ledger):
    machines = fake_autoscaling_cluster
    assert machines.machines() == 0
    counts = []
    code, output = run_study(machines, STUDY, SPEC, lambda: counts.append(machines.machines()))
    assert code == 0, output
    assert "4/4" in output
    assert max(counts) == 2
    events = [event for _, event in ledger.whole()]
    ends = [event["event"] for event in events if event["event"] not in ("study", "epoch")]
    assert sorted(ends) == ["finished"] * 4 + ["started"] * 4
    machines.wait_for(lambda: machines.machines() == 0, timeout_s=240, what="the empty cluster")
