"""What orchestration costs: the same small runs under bare Ray Tune and under `transkd run`, in alternation.

Both train with the same trainer, in processes that are reused. Ours besides checks the study, keeps ledger, budgets of
retries and MLflow, and writes a report. Run: python benchmarks/orchestration.py [--runs 20] [--times 2]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import yaml
from ratios import record

from orchestrator.store.ledger import Ledger

ROOT = Path(__file__).parents[1]
CPUS = os.cpu_count() or 1
BASE: dict[str, Any] = {
    "data": {"name": "scenes", "size": [32, 64], "options": {"train": 8, "val": 4, "size": [32, 64]}},
    "student": {"name": "segformer_tiny"},
    "optim": {"lr": 1.0e-3, "epochs": 2, "global_batch": 4},
}


class Cost(NamedTuple):
    """Seconds from the first run's start to the last one's end, and of the whole command."""

    runs_s: float
    all_s: float


def bare(folder: Path, runs: int) -> Cost:
    """The runs under Ray Tune alone, in a process of their own."""
    began = time.perf_counter()
    done = _run([__file__, "bare", str(folder), str(runs)])
    first, last = json.loads(done.splitlines()[-1])
    return Cost(last - first, time.perf_counter() - began)


def tune_alone(folder: Path, runs: int) -> None:
    """The program that `bare` starts; prints the times of the first start and the last end."""
    import ray
    from ray import tune

    def trainable(config: Mapping[str, Any]) -> None:
        from trainer.config import parse
        from trainer.place import Place
        from trainer.training.loop import fit

        place = Place(out_dir=folder / str(config["seed"]), cache_dir=folder / "cache", threads=1)
        fit(parse({**BASE, "seed": config["seed"]}), place, report=lambda metrics, _: tune.report(metrics))

    class Times(tune.Callback):
        """When the first trial has started and the last has ended."""

        def __init__(self) -> None:
            self.at: list[float] = []

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.at.append(time.time())

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.at.append(time.time())

    ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    times = Times()
    found = tune.Tuner(
        trainable,
        param_space={"seed": tune.grid_search(list(range(runs)))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0, callbacks=[times]),
    ).fit()
    assert found.num_terminated == runs, found.errors
    print(json.dumps([times.at[0], times.at[-1]]))


def ours(folder: Path, runs: int) -> Cost:
    """The runs as the seeds of a study."""
    file, store = folder / "study.yaml", folder / "store"
    study = {"name": "small", "base": BASE, "variants": {"alone": {}}, "seeds": runs}
    file.write_text(yaml.safe_dump(study), encoding="utf-8")
    began = time.perf_counter()
    _run(["-m", "orchestrator", "run", str(file), "--store", str(store)])
    all_s = time.perf_counter() - began
    events = [event for _, event in Ledger(store / "ledger.jsonl").whole()]
    at = [datetime.fromisoformat(event["time"]) for event in events if event["event"] in ("started", "finished")]
    assert len(at) == 2 * runs, "not every run has finished"
    return Cost((at[-1] - at[0]).total_seconds(), all_s)


def _run(words: list[str]) -> str:
    hidden = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "TRANSKD_CACHE")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    quiet = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words]
    done = subprocess.run(command, env={**kept, **quiet}, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["bare"]:
        tune_alone(Path(sys.argv[2]), int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--times", type=int, default=2, help="how often both are measured")
    given = parser.parse_args()
    found: dict[str, list[Cost]] = {"bare Ray Tune": [], "transkd run": []}
    for _ in range(given.times):
        for cost, measure in zip(found.values(), (bare, ours), strict=True):
            with tempfile.TemporaryDirectory() as folder:
                cost.append(measure(Path(folder), given.runs))
    print(f"{given.runs} runs of {BASE['optim']['epochs']} epochs, {CPUS} at once; medians of {given.times}")
    for name, costs in found.items():
        a_run = median(cost.runs_s for cost in costs) / given.runs
        print(f"{name:15} {a_run:6.2f} s a run   {median(cost.all_s for cost in costs):6.1f} s in all")
    tune, we = (median(cost.runs_s for cost in costs) for costs in found.values())
    print(f"ratio of seconds a run {we / tune:.2f}")
    record("seconds a run: bare Ray Tune over transkd run", tune / we, 1 / 1.2)


if __name__ == "__main__":
    main()
