"""Stores whose runs were never trained: a ledger written by formula, and pictures of the right shape."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ablations.study.plan import Run, expand, search_identity, trial_run
from ablations.study.schema import Study, read
from ablations.study.variant_search import searches
from orchestrator.report.page.data import Report, report_of
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from trainer.config import NUMERICS_VERSION

BASE = """
base:
  data: {name: scenes, size: [32, 64], options: {train: 16, val: 8, size: [32, 64]}, select: 0.25}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 2}}
  optim: {lr: 1.0e-3, epochs: 9, global_batch: 8, norm_batch: 4}
  distill: {csf: {}, pea: {}}
"""

STUDIES = {
    # Two contrasts, one that six seeds decide and one that they do not; and names that markup must not read.
    "arms": """
name: arms
variants:
  student alone: {distill: {}}
  "Base <both>": {}
  without PEA & CSF: {distill.pea: null}
seeds: 6
contrasts: [["Base <both>", student alone], [without PEA & CSF, "Base <both>"]]
margin: 0.3
""",
    # Two contrasts with seeds that decide one of them.
    "decided": """
name: decided
variants:
  student alone: {distill: {}}
  "Base <both>": {}
  without PEA & CSF: {distill.pea: null}
seeds: 8
contrasts: [["Base <both>", student alone], [without PEA & CSF, "Base <both>"]]
""",
    # A search in which one dimension does not always apply.
    "search": """
name: search
search:
  trials: 20
  stop: asha
  space:
    distill: {choice: {csf: {csf: {}}, both: {csf: {}, pea: {}}}}
    distill.csf.weight: {log: [1.0e-2, 10.0]}
    distill.pea.weight: {log: [1.0e-2, 10.0]}
    optim.lr: {log: [1.0e-4, 1.0e-2]}
""",
    # Every variant with a search of its own, and winners trained again.
    "tuned": """
name: tuned
variants: {student alone: {distill: {}}, both: {}}
seeds: 2
tune_each: {trials: 16, space: {distill.csf.weight: {log: [1.0e-2, 10.0]}, optim.lr: {log: [1.0e-4, 1.0e-2]}}}
""",
    # Students that cost differently.
    "costs": """
name: costs
variants: {tiny: {}, mini: {student.name: segformer_mini}, B0: {student.name: segformer_b0}}
seeds: 2
""",
}

COSTS = {"segformer_tiny": (0.1, 0.02), "segformer_mini": (0.6, 0.07), "segformer_b0": (3.7, 0.3)}
"""Millions of parameters and GMACs, about."""

ENVIRONMENT = {
    "numerics": NUMERICS_VERSION,
    "python": "3.11.7",
    "torch": "2.12.1",
    "processor": "a CPU",
    "device": "cpu",
    "device_name": "",
    "threads": 2,
    "workers": 1,
    "git": {"commit": "0123abcd", "dirty": True, "diff": "feed"},
}
CLASSES = ("road", "car", "rider")


@dataclass
class Synthetic:
    """A study and a store that holds what its runs would have left."""

    study: Study
    file: Path
    store: Store

    @property
    def report(self) -> Report:
        """As `transkd report` gathers it."""
        return report_of(StudyState(self.study, Ledger(self.store.ledger)), self.store)


def level(run: Run) -> float:
    """The metric that a run ends at: its arm's, and a wobble of its seed that hides the second contrast."""
    arms = {"student alone": 50.0, "Base <both>": 55.0, "without PEA & CSF": 54.8, "tiny": 51.0, "mini": 57.0}
    return arms.get(run.arm, 60.0) + 0.4 * math.sin(7 * run.seed + len(run.arm))


def epochs_of(score: float, count: int, of: int, select: bool = False) -> list[dict[str, float]]:
    """`count` epochs of a run of `of`, which would end at `score`; the last class is in no picture."""
    found = []
    for epoch in range(1, count + 1):
        value = score * (1 - 0.5 * math.exp(-4 * epoch / of)) / (1 - 0.5 * math.exp(-4))
        metrics = {"epoch": float(epoch), "step": 2.0 * epoch, "loss": 3.0 / epoch, "loss/ce": 2.0 / epoch}
        metrics |= {"val/miou": value, "val/iou/road": value + 20, "val/iou/car": value - 20, "val/iou/rider": math.nan}
        found.append(metrics | ({"select/miou": value - 1.0} if select else {}) | {"seconds": 1.5})
    return found


def events(study: Study, run: Run, score: float, count: int | None = None, status: str = "finished") -> Iterator[dict]:
    """What a driver writes about one run."""
    who = {"run_id": run.config.key, "key": run.config.key}
    who |= {"study": study.name, "arm": run.arm, "seed": run.seed, "role": run.role}
    total = run.config.optim.epochs
    done = epochs_of(score, total if count is None else count, total, bool(run.config.data.select))
    yield {"event": "started", **who}
    for metrics in done:
        yield {"event": "epoch", "run_id": run.config.key, "metrics": metrics}
    if status == "running":
        return
    facts: dict[str, Any] = {"last": done[-1], "best": {}, "environment": ENVIRONMENT, "seconds": 3600.0}
    params_m, gmacs = COSTS[run.config.student.name]
    facts["complexity"] = {"params_m": params_m, "gmacs_paper": gmacs, "gmacs": gmacs}
    facts["data"] = {"train": "aaaa", "val": "bbbb"}
    facts["weights"] = {"teacher": {"file": "/somewhere/else/best.pt", "sha256": "c0ffee" * 10}}
    if status == "stopped":
        facts = {"last": done[-1]}
    if status == "failed":
        facts = {"cause": "nan", "reason": "loss/pea is nan at step 3"}
    yield {"event": status, **who, **facts}


def trial_events(study: Study, number: int, status: str = "") -> Iterator[dict]:
    """A proposal, and its run: every third is stopped. One that is refused has no run."""
    random = np.random.default_rng(number)
    values: dict[str, Any] = {"optim.lr": float(10 ** random.uniform(-4, -2))}
    space = study.search.space if study.search else {}
    if "distill" in space:
        values["distill"] = ("csf", "both")[number % 2]
    for path in ("distill.csf.weight", "distill.pea.weight"):
        if path in space and (path != "distill.pea.weight" or values.get("distill") != "csf"):
            values[path] = float(10 ** random.uniform(-2, 1))
    run = trial_run(study, number, values)
    score = 50.0 - 4 * abs(math.log10(values["optim.lr"]) + 3) + random.normal()
    who = {"run_id": run.config.key, "key": run.config.key, "study": study.name, "arm": run.arm, "seed": run.seed}
    identity = search_identity(study)
    asked = {"event": "trial", "role": "trial", "search": identity, "number": number, "values": values}
    if status == "refused":
        yield {**asked, "study": study.name, "end": {"event": "failed", "reason": "too large"}}
        return
    yield {**asked, **who}
    status = status or ("stopped" if number % 3 == 2 else "finished")
    yield from events(study, run, score, None if status == "finished" else 3, status)


def panel(path: Path, size: tuple[int, int], shade: int) -> None:
    """Two rows of image, truth and prediction with gaps of 4 pixels, as the trainer lays them out."""
    height, width = size
    row = np.full((height + 4, 3 * width + 8, 3), 255, dtype=np.uint8)
    for i, colour in enumerate((40, 120, shade)):
        row[:height, i * (width + 4) : i * (width + 4) + width] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([row, row])).save(path)


@pytest.fixture
def synthetic(tmp_path) -> Callable[..., Synthetic]:
    """synthetic(kind, where, {(arm or trial, seed): status or None}): a store in which all else of the study has
    ended."""

    def make(
        kind: str = "arms", where: str = "store", ends: dict[tuple[str, int], str | None] | None = None
    ) -> Synthetic:
        study, store = read(STUDIES[kind] + BASE, "synthetic.yaml"), Store(tmp_path / where)
        lines: list[dict] = []
        won = {}
        for arm, search in searches(study).items():
            trials = range(search.search.trials) if search.search else ()
            for number in trials:
                lines += trial_events(search, number, (ends or {}).get((search.trial_name(number), 0)) or "")
            ended = [line for line in lines if line["event"] == "finished" and line["arm"].startswith(arm)]
            best = max(ended, key=lambda line: line["last"]["select/miou"])["run_id"]
            won[arm] = next(line["values"] for line in lines if line["event"] == "trial" and line.get("run_id") == best)
        for run in expand(study, won if study.tune_each else None):
            status = (ends or {}).get((run.arm, run.seed), "finished")
            if status is not None:
                lines += events(study, run, level(run), 2 if status != "finished" else None, status)
                panel(store.run_dir(run.config.key) / "panel.png", run.config.data.size, int(level(run)) * 4)
        store.root.mkdir(parents=True, exist_ok=True)
        # A file at once, for the ledger's own writer waits for the disk at every line.
        time = {"time": "2026-01-01T00:00:00.000+00:00"}
        written = "".join(json.dumps(_finite({"event": line["event"], **time, **line})) + "\n" for line in lines)
        store.ledger.write_text(written)
        file = tmp_path / f"{study.name}.yaml"
        file.write_text(STUDIES[kind] + BASE)
        return Synthetic(study, file, store)

    return make


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
