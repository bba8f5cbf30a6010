"""`transkd plan` of a grid of 10,000 runs, and `transkd report` of 1,000 finished ones: seconds and peak memory.

All through the command line, in stores that are thrown away. Run: python benchmarks/scale.py
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ablations.study.plan import Run, expand
from ablations.study.schema import Study, load

SMALL = {
    "data": {"name": "scenes", "size": [64, 128]},
    "student": {"name": "segformer_mini"},
    "teacher": {"name": "segformer_b0", "train": {"epochs": 50}},
    "optim": {"lr": 1.0e-3, "epochs": 50, "global_batch": 8, "norm_batch": 4},
    "distill": {"csf": {}, "pea": {}},
}
GRID: dict[str, Any] = {
    "name": "grid",
    "base": SMALL,
    "factors": {
        "optim.lr": [1.0e-4, 3.0e-4, 1.0e-3, 3.0e-3, 1.0e-2],
        "distill.csf.weight": [0.1, 0.3, 1.0, 3.0, 10.0],
        "distill.pea.weight": [0.1, 0.3, 1.0, 3.0, 10.0],
        "distill.csf.options.norm": ["layer", "reference"],
    },
    "seeds": 40,
}
"""250 arms at 40 seeds: 10,000 runs and a teacher."""
MANY: dict[str, Any] = {
    "name": "many",
    "base": SMALL,
    "factors": {"optim.lr": [1.0e-4 * step for step in range(1, 26)]},
    "seeds": 40,
}
"""25 arms at 40 seeds: 1,000 runs and a teacher."""
EPOCHS = 50
CLASSES = 14
"""With what stands beside them, 20 metrics an epoch."""


def events(study: Study) -> Iterator[dict[str, Any]]:
    """The ledger of the study, every run finished."""
    rng = random.Random(0)
    for number, run in enumerate(expand(study)):
        who = {"run_id": f"{number:012x}", "key": run.key, "study": study.name, "arm": run.arm, "seed": run.seed}
        at = f"2026-01-01T{number % 24:02d}:00:00.000+00:00"
        config = run.config.model_dump(mode="json")
        yield {"event": "started", "time": at, **who, "role": run.role, "config": config}
        for epoch in range(1, EPOCHS + 1):
            last = metrics(rng, epoch, run)
            yield {"event": "epoch", "time": at, "run_id": who["run_id"], "metrics": last}
        facts = {"last": last, "best": {"epoch": EPOCHS, "val/miou": last["val/miou"]}, "seconds": 50.0}
        environment = {"device": "cpu", "processor": "a CPU", "threads": 1, "workers": 1}
        yield {"event": "finished", "time": at, **who, "role": run.role, **facts, "environment": environment}


def metrics(rng: random.Random, epoch: int, run: Run) -> dict[str, float]:
    """20 numbers."""
    miou = 40 * (1 - math.exp(-epoch / 15)) + 100 * run.config.optim.lr + rng.gauss(0, 0.5)
    iou = {f"val/iou/class {k}": miou + rng.gauss(0, 5) for k in range(CLASSES)}
    beside = {"loss": 50 / (miou + 1), "loss/ce": 40 / (miou + 1), "seconds": 1.0}
    return {"epoch": float(epoch), "step": 30.0 * epoch, **beside, "val/miou": miou, **iou}


class Cost(NamedTuple):
    """What a command took."""

    seconds: float
    cpu_s: float
    """Of all its threads: what the seconds are where nothing else runs."""
    peak_mib: float
    lines: int
    """Printed."""


def timed(*words: str, store: Path) -> Cost:
    """What `transkd WORDS` takes on a store."""
    command = [sys.executable, "-m", "orchestrator", *words, "--store", str(store)]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, f"{' '.join(command)} ended with {process.returncode}"
        out.seek(0)
        return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, len(out.readlines()))


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for study in (GRID, MANY):
            files[study["name"]] = Path(folder) / f"{study['name']}.yaml"
            files[study["name"]].write_text(yaml.safe_dump(study, sort_keys=False))
        fresh, full = (Path(folder) / name for name in ("fresh", "full"))
        full.mkdir()
        many = load(files["many"])
        with (full / "ledger.jsonl").open("w") as ledger:
            ledger.writelines(json.dumps(event) + "\n" for event in events(many))
        size = (full / "ledger.jsonl").stat().st_size / 1e6
        print(f"ledger of {len(expand(many))} runs x {EPOCHS} epochs x 20 metrics: {size:.0f} MB")
        for what, words, store in (
            ("plan of 10,001 runs, first time", ("plan", str(files["grid"]), "--no-probe"), fresh),
            ("the same again", ("plan", str(files["grid"]), "--no-probe"), fresh),
            ("report of 1,001 finished runs", ("report", str(files["many"])), full),
            ("status of the same", ("status", str(files["many"])), full),
        ):
            cost = timed(*words, store=store)
            print(f"{what:32} {cost.seconds:6.1f} s ({cost.cpu_s:.1f} of CPU) {cost.peak_mib:6.0f} MiB", end="")
            print(f" {cost.lines:4} lines")


if __name__ == "__main__":
    main()
