"""The studies that chaos is let loose on: one of arms, one that searches, one whose runs are groups of two workers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

BASE: dict[str, Any] = {
    "data": {"name": "scenes", "size": [64, 128], "options": {"train": 32, "val": 8, "size": [64, 128]}},
    "student": {"name": "segformer_tiny"},
    "teacher": {"name": "segformer_mini", "train": {"epochs": 3}},
    "optim": {"lr": 1.0e-3, "epochs": 6, "global_batch": 8, "norm_batch": 4},
    "distill": {"csf": {}, "pea": {}},
}
ARMS = {"variants": {"student alone": {"distill": {}}, "TransKD-Base": {}}, "seeds": [0, 1]}
SEARCH = {
    "trials": 5,
    "stop": "asha",
    "startup": 2,
    "space": {"distill.csf.weight": {"log": [1.0e-2, 10.0]}, "distill.pea.weight": {"log": [1.0e-2, 10.0]}},
}
ONE_BY_ONE = {"cpus_per_worker": 0.5, "concurrency": 1}


@dataclass(frozen=True)
class Case:
    """A study, and the cluster spec it is run with."""

    study: dict[str, Any]
    spec: dict[str, Any]


CASES = {
    "arms": Case({"base": BASE, **ARMS}, {}),
    "search": Case({"base": {**BASE, "data": {**BASE["data"], "select": 0.25}}, "search": SEARCH}, ONE_BY_ONE),
    # every run a Ray Train group of two
    "group": Case({"base": BASE, **ARMS, "seeds": [0]}, {**ONE_BY_ONE, "workers": 2}),
}
MANY = {"retries": {"lost": 1000}}
"""Chaos is not to be given up on."""


def write(case: Case, name: str, folder: Path) -> list[str]:
    """The case's files, and the command that runs it."""
    study, spec = folder / f"{name}.yaml", folder / f"{name}_spec.yaml"
    study.write_text(yaml.safe_dump({"name": name, **case.study}, sort_keys=False))
    spec.write_text(yaml.safe_dump({**MANY, **case.spec}))
    return [sys.executable, "-m", "orchestrator", "run", str(study), "--cluster", str(spec)]
