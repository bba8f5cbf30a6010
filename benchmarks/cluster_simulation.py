"""A study of 10,000 runs on 200 nodes that are lost and come again: what is wasted, and what the driver costs.

The driver is the program's own (`Launch`: jobs, queue, claims, Ray Tune, callbacks, ledger, the view of a job's log);
nodes, processes, training and time are simulated (`simulated_cluster.py`). The same trials run under bare Ray Tune. How
long a run takes is drawn from a real ledger: the given one, or `run_seconds.json`, of the 116 runs of `camvid_paper`.
Run: python benchmarks/cluster_simulation.py [--runs 10000] [--nodes 200] [--lifetime-h 1] [--ledger STORE/ledger.jsonl]
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import yaml
from driver_cost import Silent, result
from scale import ROOT, grid
from scale_store import metrics
from simulated_cluster import Cluster, Node, Program, SimulatedActors, Steps

from trainer.files.run_folder import LAST, append_epoch, write_result

BOOT_S = 180.0
"""Until a node that was lost has been replaced."""
START_S = 15.0
"""Of a process until it trains; `orchestrator/prepare/estimate.py` has measured it."""
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
"""Environment of both: Tune writes no files of its own about each result, and prints nothing."""
SAMPLE = Path(__file__).with_name("run_seconds.json")


class Durations(NamedTuple):
    """The runs of one role in a ledger: their epochs, and the seconds of each run."""

    epochs: int
    seconds: list[float]


def durations(ledger: Path | None) -> dict[str, Durations]:
    """Of teachers and arms. Of a ledger, those with the most frequent number of epochs."""
    if ledger is None:
        return {role: Durations(**found) for role, found in json.loads(SAMPLE.read_text(encoding="utf-8")).items()}
    from orchestrator.store.ledger import Ledger

    runs = [run for run in Ledger(ledger).outcomes().values() if run.status == "finished" and run.seconds]
    found = {}
    for role in ("teacher", "arm"):
        ours = [run for run in runs if any(member.role == role for member in run.members)]
        assert ours, f"{ledger} has no finished {role}; leave --ledger out to take those of {SAMPLE.name}"
        epochs = Counter(run.epochs_done for run in ours).most_common(1)[0][0]
        found[role] = Durations(epochs, [round(run.seconds, 1) for run in ours if run.epochs_done == epochs])
    return found


class Runs:
    """What the simulated processes do. A run that lost its process goes on after its last epoch."""

    def __init__(self, drawn: dict[str, Durations], seed: int) -> None:
        self.drawn = drawn
        self.rng = random.Random(seed)
        self.seconds: dict[str, float] = {}
        self.epochs: Counter[str] = Counter()
        """Of each run, those that it has trained."""
        self.work_s = {"teacher": 0.0, "arm": 0.0}

    def train(self, name: str, role: str, out: Path | None) -> Steps:
        """The epochs of a run that are left, and its end. Its files are written to `out`."""
        epochs, seconds = self.drawn[role]
        if name not in self.seconds:
            self.seconds[name] = self.rng.choice(seconds)
            self.work_s[role] += self.seconds[name]
        while self.epochs[name] < epochs:
            yield self.seconds[name] / epochs, lambda: self._epoch(name, epochs, out)
        yield 0.0, lambda: {"__duplicate__": True}

    def _epoch(self, name: str, epochs: int, out: Path | None) -> dict[str, Any]:
        """An epoch has been trained: what Tune is told of it."""
        self.epochs[name] += 1
        done = self.epochs[name]
        found = metrics(self.rng, done, 0.0)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            append_epoch(out, found)
            if done == epochs:
                zipfile.ZipFile(out / LAST, "w").close()  # students ask whether their teacher's is whole
                write_result(out, result(name, found))
        clock = {"time_this_iter_s": self.seconds[name] / epochs, "time_total_s": self.seconds[name], "pid": 1}
        where = {"hostname": "node", "node_ip": "127.0.0.1", "date": "", "timestamp": 0, "done": False}
        return {**found, **clock, **where, "training_iteration": done, "run_id": name}


def ours(given: argparse.Namespace, folder: Path, cluster: Callable[[Program], Cluster], runs: Runs) -> Cluster:
    """The runs as a study, by the program's own driver."""
    from rich.console import Console

    from ablations.study.schema import load
    from cluster.machine_types import Machine
    from cluster.spec import ClusterSpec
    from orchestrator.launch import Launch
    from orchestrator.running import callbacks, ray_session, shared_searcher
    from orchestrator.runs_left import unfinished
    from orchestrator.store.folder import Store
    from orchestrator.terminal.log_lines import Lines, StudyProgress

    study = grid(given.runs)
    study["base"]["teacher"]["train"] = {"epochs": runs.drawn["teacher"].epochs}
    study["base"]["optim"]["epochs"] = runs.drawn["arm"].epochs
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    spec = ClusterSpec(address="auto", gpus_per_worker=1, cohort="off")
    job = Launch(load(str(file)), spec, Store(folder / "store"), {})
    job.store.root.mkdir()
    job.prepare(lambda text: None)

    def program(config: dict[str, Any]) -> Steps:
        (run,) = config["jobs"]
        role = "arm" if run["place"]["teacher"] else "teacher"
        return runs.train(run["run_id"], role, Path(run["place"]["out_dir"]))

    simulated = cluster(program)

    @contextmanager
    def session(spec: ClusterSpec, store: Store, *told: Callable[..., object]) -> Iterator[list[Machine]]:
        yield [Machine(1, 1)] * given.nodes

    ray_session.session = session
    os.environ.update(ray_session.ENVIRONMENT)
    callbacks.time = shared_searcher.time = SimpleNamespace(monotonic=lambda: simulated.now, sleep=time.sleep)
    with job.store.leases.study(study["name"]):
        job.run(Silent(), lambda: Lines(Console(file=io.StringIO()), StudyProgress(job.state)))
    lacking = unfinished(job.state)
    assert not lacking, f"{len(lacking)} did not finish: {next(iter(lacking.items()))}"
    return simulated


def bare(given: argparse.Namespace, folder: Path, cluster: Callable[[Program], Cluster], runs: Runs) -> Cluster:
    """The same trials under Ray Tune alone: the teacher, and then the others."""
    from ray import tune

    def trainable(config: dict[str, Any]) -> None:
        raise AssertionError("its processes are simulated")

    simulated = cluster(lambda config: runs.train(config["run"], config["role"], None))
    numbers = map(str, itertools.count())
    for role, count in (("teacher", 1), ("arm", given.runs)):
        found = tune.Tuner(
            tune.with_resources(trainable, {"CPU": 1, "GPU": 1}),
            param_space={"role": role, "run": tune.sample_from(lambda _: next(numbers))},
            tune_config=tune.TuneConfig(reuse_actors=True, num_samples=count, max_concurrent_trials=given.nodes),
            run_config=tune.RunConfig(
                storage_path=str(folder / role), verbose=0, failure_config=tune.FailureConfig(max_failures=20)
            ),
        ).fit()
        assert found.num_terminated == count, found.errors[:1]
    return simulated


def measured(given: argparse.Namespace) -> dict[str, float]:
    """One of the two in this process."""
    import ray
    from ray.tune.execution import tune_controller

    os.environ.update(QUIET)
    drawn = durations(given.ledger)
    if given.epochs:
        drawn["arm"] = drawn["arm"]._replace(epochs=given.epochs)
    runs = Runs(drawn, given.seed)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    nodes, life_s = [Node() for _ in range(given.nodes)], 3600 * given.lifetime_h

    def cluster(program: Program) -> Cluster:
        made = Cluster(nodes, program, life_s, BOOT_S, START_S, given.seed)
        tune_controller.RayActorManager = lambda resource_manager: SimulatedActors(made)
        return made

    with tempfile.TemporaryDirectory() as folder:
        done = {"ours": ours, "bare": bare}[given.only](given, Path(folder), cluster, runs)
    done.charge()
    taught_s = runs.work_s["teacher"]
    spent_s = done.capacity_s(0.0, done.now)
    return {
        "makespan_h": done.now / 3600,
        "ideal_h": done.reached(taught_s, runs.work_s["arm"]) / 3600,
        "gpu_hours": spent_s / 3600,
        "training": sum(runs.work_s.values()) / 3600,
        "repeated": done.repeated_s / 3600,
        "starts": done.started_s / 3600,
        "teacher": (done.capacity_s(0.0, taught_s) - taught_s) / 3600,
        "losses": done.losses,
        "driver_s": done.driver_s,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def table(ours: dict[str, float], bare: dict[str, float], runs: int) -> Iterator[str]:
    """The lines of the result."""
    yield f"{'':46}{'transkd run':>14}{'bare Ray Tune':>15}"
    rows: dict[str, Callable[[dict[str, float]], float]] = {
        "makespan, hours": lambda one: one["makespan_h"],
        "ideal for these nodes and losses, hours": lambda one: one["ideal_h"],
        "makespan / ideal": lambda one: one["makespan_h"] / one["ideal_h"],
        "nodes lost": lambda one: one["losses"],
        "GPU-hours paid for": lambda one: one["gpu_hours"],
        "  training that counts": lambda one: one["training"],
        "  wasted, of all, %": lambda one: 100 * (1 - one["training"] / one["gpu_hours"]),
        "    idle while the teacher trains": lambda one: one["teacher"],
        "    trained again after a loss": lambda one: one["repeated"],
        "    starts of processes": lambda one: one["starts"],
        "    waiting for the driver, and the end": lambda one: (
            one["gpu_hours"] - sum(one[name] for name in ("training", "teacher", "repeated", "starts"))
        ),
        "driver, CPU seconds": lambda one: one["driver_s"],
        "driver, CPU milliseconds a trial": lambda one: 1000 * one["driver_s"] / runs,
        "driver, peak MiB": lambda one: one["peak_mib"],
    }
    for name, value in rows.items():
        yield f"{name:46}{value(ours):14.2f}{value(bare):15.2f}"
    held = [(one["gpu_hours"] - one["teacher"]) * 3600 / runs for one in (ours, bare)]
    yield f"seconds of a node for a trial: {held[0]:.1f} and {held[1]:.1f}, ratio {held[0] / held[1]:.3f}"


def main() -> None:
    """Measure both, each in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10000, help="beside the teacher: 100, 400, 1000, 2000 or 10000")
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--lifetime-h", type=float, default=1.0, help="mean hours until a node is lost; 0: never")
    parser.add_argument("--ledger", type=Path, help="a ledger, for how long runs take")
    parser.add_argument("--epochs", type=int, help="of a run, each with a report to the driver [as in the ledger]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["ours", "bare"], help="one of the two, as JSON")
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measured(given)))
        return
    found = {}
    for which in ("ours", "bare"):
        words = [sys.executable, __file__, *sys.argv[1:], "--only", which]
        done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, check=True)
        found[which] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{given.runs:,} runs and a teacher on {given.nodes} nodes, each lost after {given.lifetime_h:g} h in the mean"
    )
    print("\n".join(table(found["ours"], found["bare"], given.runs)))


if __name__ == "__main__":
    main()
