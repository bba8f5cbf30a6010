"""What stands around the training of runs that have several workers: seconds from one run to the next, and an epoch's.

Runs a study of small runs, one after the other, and reads its ledger. Run:
python benchmarks/workers.py [--workers 2] [--runs 4] [--epochs 8] [--images 96]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from ratios import record

from orchestrator.store.ledger import Ledger
from orchestrator.store.ledger_run import LedgerRun

ROOT = Path(__file__).parents[1]


def study(runs: int, epochs: int, images: int) -> dict[str, Any]:
    """So many runs of a student alone, which differ in their seed."""
    data = {"name": "scenes", "size": [64, 128], "options": {"train": images, "val": 4, "size": [64, 128]}}
    optim = {"lr": 1.0e-3, "epochs": epochs, "global_batch": 8, "norm_batch": 4}
    base = {"data": data, "student": {"name": "segformer_tiny"}, "optim": optim}
    return {"name": "workers", "base": base, "variants": {"alone": {}}, "seeds": runs}


def train(folder: Path, workers: int, content: dict[str, Any]) -> list[LedgerRun]:
    """Run the study in a store of its own; its runs in the order in which they ended."""
    file, spec, store = folder / "study.yaml", folder / "cluster.yaml", folder / "store"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    cluster = {"workers": workers, "cpus_per_worker": 1 / workers, "concurrency": 1, "threads": 1}
    spec.write_text(yaml.safe_dump(cluster), encoding="utf-8")
    hidden = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "TRANSKD_CACHE")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-m", "orchestrator", "run", file, "--cluster", spec, "--store", store]
    done = subprocess.run(
        command, env={**kept, "PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(Ledger(store / "ledger.jsonl").outcomes().values(), key=lambda run: run.changed)


def seconds(first: str, last: str) -> float:
    """The seconds between two times in ISO 8601."""
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def epochs(run: LedgerRun) -> Iterator[tuple[float, float]]:
    """Of each epoch but the first: seconds since the one before it, and its own seconds of computing."""
    for (_, before), (number, now) in pairwise(sorted(run.reported.items())):
        yield seconds(before, now), run.epochs[int(number) - 1]["seconds"]


def between(runs: list[LedgerRun]) -> Iterator[float]:
    """Seconds from a run's end until the next one's first epoch begins."""
    for before, run in pairwise(runs):
        yield seconds(before.changed, run.reported[1.0]) - run.epochs[0]["seconds"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("workers", 2), ("runs", 4), ("epochs", 8), ("images", 96)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = train(Path(folder), given.workers, study(given.runs, given.epochs, given.images))
        taken, computed = zip(*(each for run in runs for each in epochs(run)), strict=True)
        gaps = list(between(runs))
    print(f"workers a run                             {given.workers}")
    print(f"an epoch, computing (median s)            {median(computed):.2f}")
    print(f"an epoch, from report to report (median s) {median(taken):.2f}, {min(taken):.2f} to {max(taken):.2f}")
    print(
        f"from a run's end to the next's first step (median s) {median(gaps):.1f}, {min(gaps):.1f} to {max(gaps):.1f}"
    )
    record(f"{given.workers} workers, epochs: computing over report to report", median(computed) / median(taken), 0.6)


if __name__ == "__main__":
    main()
