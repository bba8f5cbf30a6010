"""A store in which a study of thousands of runs has finished, made without training: a ledger with the runs' own ids.

Run: python benchmarks/scale_store.py STUDY.yaml STORE
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scale import EPOCHS

from ablations.study.plan import Run, expand
from ablations.study.schema import load
from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import Preparer
from orchestrator.store.folder import Store
from trainer.place import Place
from trainer.training.sources import SourceReader

CLASSES = 14
"""With what stands beside them, 20 metrics an epoch."""


def ids(runs: Sequence[Run], place: Place) -> dict[str, str]:
    """Run ids by config key."""
    reader = SourceReader(lambda _: place)
    return {run.key: reader.run_id(run.config, run.key, run.teacher) for run in runs}


def finished(study: str, runs: Sequence[Run], named: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The ledger of these runs, every one finished."""
    rng = random.Random(0)
    for number, run in enumerate(runs):
        who = {"run_id": named[run.key], "key": run.key, "study": study, "arm": run.arm, "seed": run.seed}
        at = f"2026-01-01T{number % 24:02d}:00:00.000+00:00"
        yield {"event": "started", "time": at, **who, "role": run.role, "config": run.config.model_dump(mode="json")}
        epochs = [metrics(rng, epoch, 100 * run.config.optim.lr) for epoch in range(1, EPOCHS + 1)]
        for epoch in epochs:
            yield {"event": "epoch", "time": at, "run_id": who["run_id"], "metrics": epoch}
        yield {"event": "finished", "time": at, **who, "role": run.role, **facts(who["run_id"], epochs[-1])}


def facts(run: str, last: dict[str, float]) -> dict[str, Any]:
    """What the ledger keeps of a result."""
    files = ["best.pt", "config.yaml", "epochs.jsonl", "last.pt", "panel.png", "result.json"]
    return {
        "last": last,
        "best": {"epoch": last["epoch"], "val/miou": last["val/miou"]},
        "complexity": {"params_m": 0.59, "gmacs": 0.05, "gmacs_paper": 0.02},
        "environment": {"device": "cpu", "processor": "a CPU", "threads": 1, "workers": 1},
        "seconds": 20.0,
        "artifacts": {"folder": f"runs/{run}", "files": files},
    }


def metrics(rng: random.Random, epoch: int, level: float) -> dict[str, float]:
    """20 numbers."""
    miou = level + 40 * (1 - math.exp(-epoch / 15)) + rng.gauss(0, 0.5)
    iou = {f"val/iou/class {k}": miou + rng.gauss(0, 5) for k in range(CLASSES)}
    beside = {"loss": 50 / (miou + 1), "loss/ce": 40 / (miou + 1), "seconds": 1.0}
    return {"epoch": float(epoch), "step": 30.0 * epoch, **beside, "val/miou": miou, **iou}


def fill(store: Store, file: Path, besides: int = 0) -> list[Run]:
    """Write the ledger of a study that has finished, but for so many runs at its end; those runs."""
    study = load(str(file))
    runs = expand(study)
    done = len(runs) - besides
    named = ids(runs, Preparer(study.name, ClusterSpec(), store, {}).place(runs[0].config))
    store.root.mkdir(exist_ok=True)
    with store.ledger.open("w") as ledger:
        ledger.writelines(json.dumps(event) + "\n" for event in finished(study.name, runs[:done], named))
    return runs[done:]


if __name__ == "__main__":
    fill(Store(Path(sys.argv[2])), Path(sys.argv[1]))
