"""The studies that chaos is let loose on: arms and searches, alone and in cohorts, and groups of two workers."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
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
    """A study, and the cluster spec it is run with; `calm` is what that says otherwise where nothing disturbs it."""

    study: dict[str, Any]
    spec: dict[str, Any]
    calm: dict[str, Any] = field(default_factory=dict)


ALONE = {"cohort": "off"}
TAUGHT = {
    "variants": {
        "both": {},
        "csf": {"distill": {"csf": {}}},
        "short": {"optim.epochs": 3},
        "student alone": {"distill": {}},
    },
    "seeds": [0],
}
SELECTING = {**BASE, "data": {**BASE["data"], "select": 0.25}}

CASES = {
    "arms": Case({"base": BASE, **ARMS}, {}),
    "search": Case({"base": SELECTING, "search": SEARCH}, ONE_BY_ONE),
    # every run of the seed in one process, against runs alone
    "cohort": Case({"base": BASE, **TAUGHT}, ONE_BY_ONE, ALONE),
    # every trial of a batch in one process, from which rungs take one after the other
    "batch": Case(
        {"base": SELECTING, "search": {**SEARCH, "trials": 6, "deterministic": True, "batch": 3}}, ONE_BY_ONE, ALONE
    ),
    # every run a Ray Train group of two
    "group": Case({"base": BASE, **ARMS, "seeds": [0]}, {**ONE_BY_ONE, "workers": 2}),
}
MANY = {"retries": {"lost": 1000}}
"""Chaos is not to be given up on."""


def write(case: Case, name: str, folder: Path, *, calm: bool = False) -> list[str]:
    """The case's files, and the command that runs it."""
    study, spec = folder / f"{name}.yaml", folder / f"{name}_spec{'_calm' * calm}.yaml"
    study.write_text(yaml.safe_dump({"name": name, **case.study}, sort_keys=False))
    spec.write_text(yaml.safe_dump({**MANY, **case.spec, **(case.calm if calm else {})}))
    return [sys.executable, "-m", "orchestrator", "run", str(study), "--cluster", str(spec)]
