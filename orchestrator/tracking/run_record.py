"""Record: what MLflow is to hold of a run: parameters, tags, points, files, students and data. Sends nothing."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.state.outcomes import hardware
from orchestrator.store.ledger_run import LedgerRun
from orchestrator.tracking.mlflow_server import Point
from trainer.config import digest
from trainer.files.run_folder import BEST, LAST

FILES = ("config.yaml", "epochs.jsonl", "result.json", "panel.png")
CLASS = "val/iou/"
CHECKPOINTS = {
    "last": (LAST, "the student after the last epoch, which the table is of"),
    "best": (BEST, "the student after the epoch with the highest val/miou; the table is of the model 'last'"),
}
"""Name of a model -> its checkpoint, and which one it is."""
SPLITS = {"train": "training", "val": "validation", "test": "test"}
"""A split -> MLflow's context of a dataset input."""
REQUIRED = ("transkd", "torch", "timm", "numpy")
"""The packages that a student needs, in the versions of its run."""


class Split(NamedTuple):
    """A split that a run read: the data set's name, the split's name, its context in MLflow, and its fingerprint."""

    data: str
    split: str
    context: str
    fingerprint: str


class Student(NamedTuple):
    """A trained student of a finished run: its name as a model, its checkpoint, and its scores on a split."""

    name: str
    path: Path
    epoch: int
    points: list[Point]
    measured_on: Split | None
    note: str
    requirements: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """One run of a study: its entry in the ledger, and its folder."""

    study: str
    arm: str
    seed: int | None
    role: str
    run: LedgerRun
    folder: Path

    @property
    def run_id(self) -> str:
        return self.run.run_id

    @property
    def status(self) -> str:
        return self.run.status

    @property
    def params(self) -> dict[str, str]:
        """Its config under dotted names (`optim.lr`); empty for a run that was never started."""
        return flatten(self.run.config)

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        seed = "" if self.seed is None else str(self.seed)
        return {
            "mlflow.runName": f"{self.arm} seed {seed}" if seed else self.arm,
            "transkd.run_id": self.run_id,
            "transkd.key": self.run.key,
            "transkd.arm": self.arm,
            "transkd.seed": seed,
            "transkd.role": self.role,
            "transkd.status": self.status,
            "transkd.attempts": str(self.run.attempts),
            "transkd.cause": self.run.cause,
            "transkd.reason": self.run.reason,
            "transkd.not_finite": self.not_finite,
            **self.made_by,
        }

    @property
    def made_by(self) -> dict[str, str]:
        """Tags of the code and the hardware that computed it, as the ledger has them: a sender's own say nothing."""
        environment = self.run.environment
        code = environment.get("git", {})
        commit = code.get("commit", "")
        changed = code.get("diff", "untracked files" if code.get("dirty") else "")
        return {
            **({"mlflow.source.name": "transkd", "mlflow.source.git.commit": commit} if commit else {}),
            "transkd.commit": commit,
            "transkd.uncommitted": changed,
            "transkd.version": self._versions.get("transkd", ""),
            "transkd.hardware": hardware(environment),
            "transkd.workers": str(environment.get("workers", "")),
            "transkd.torch": self._versions.get("torch", ""),
        }

    @property
    def _versions(self) -> dict[str, str]:
        """Package -> version: of the run's own process, else of its driver's."""
        environment = self.run.environment
        return {**environment.get("packages", {}), **{k: v for k, v in environment.items() if k in REQUIRED}}

    @property
    def splits(self) -> list[Split]:
        """The splits that it read; empty before it has finished."""
        data = self.run.config.get("data", {}).get("name", "")
        return [Split(data, name, SPLITS[name], text) for name, text in self.run.data.items() if name in SPLITS]

    @cached_property
    def students(self) -> list[Student]:
        """Its students, where it has finished and the checkpoint is there."""
        measured = {"last": self.run.last, "best": self.run.best}
        val = next((split for split in self.splits if split.split == "val"), None)
        versions = self._versions
        requirements = tuple(f"{name}=={versions[name]}" for name in REQUIRED if name in versions)
        found = []
        for name, (file, which) in CHECKPOINTS.items():
            if self.status != "finished" or "epoch" not in measured[name] or not (self.folder / file).is_file():
                continue
            epoch = int(measured[name]["epoch"])
            note = f"{file}: {which}. Epoch {epoch}."
            scores = [
                point
                for row in self.run.epochs
                if row["epoch"] == epoch
                for point in self._points(row)
                if point.name.startswith("val/") and not point.name.startswith(CLASS)
            ]
            found.append(Student(name, self.folder / file, epoch, scores, val, note, requirements))
        return found

    def points(self, held: Container[int]) -> dict[int, list[Point]]:
        """The finite numbers of each epoch but those in `held`: infinity would become 1.8e308 on the server."""
        return {step: self._points(epoch) for epoch in self.run.epochs if (step := int(epoch["epoch"])) not in held}

    def _points(self, epoch: Mapping[str, float]) -> list[Point]:
        when = milliseconds(self.run.reported[epoch["epoch"]])
        return [Point(name, float(v), int(epoch["epoch"]), when) for name, v in epoch.items() if _is_finite(v)]

    @property
    def not_finite(self) -> str:
        """`loss/pea at epoch 3; ...`: what `points` leaves out."""
        left_out = [
            f"{name} at epoch {epoch['epoch']:.0f}"
            for epoch in self.run.epochs
            for name, value in epoch.items()
            if isinstance(value, float) and not math.isfinite(value)
        ]
        return "; ".join(left_out)

    @property
    def summary(self) -> dict[str, float]:
        """Numbers of the whole run: `best/val/miou`, `complexity/params_m`, ..."""
        parts = {"best": self.run.best, "complexity": self.run.complexity}
        return {f"{part}/{n}": float(v) for part, values in parts.items() for n, v in values.items() if _is_finite(v)}

    @property
    def ended_ms(self) -> int:
        """When it ended, in milliseconds since 1970; when it started, for a running one."""
        return milliseconds(self.run.changed)

    @property
    def per_class(self) -> dict[str, float]:
        """Class name to IoU, of the last epoch that was validated."""
        for epoch in reversed(self.run.epochs):
            if found := {n.removeprefix(CLASS): v for n, v in epoch.items() if n.startswith(CLASS)}:
                return found
        return {}

    @property
    def note(self) -> str:
        """Its description on MLflow's page: which model is which."""
        return "  \n".join(f"Model `{student.name}`: {student.note}" for student in self.students)

    @cached_property
    def files(self) -> list[Path]:
        """The files that are there, but for the checkpoints: `students` are sent as models."""
        return [path for name in FILES if (path := self.folder / name).is_file()]

    @property
    def content(self) -> str:
        """A digest that is equal when nothing has changed since."""
        sizes = [(path.name, path.stat().st_size) for path in (*self.files, *(one.path for one in self.students))]
        return digest([self.tags, [dict(epoch) for epoch in self.run.epochs], self.summary, self.splits, sizes])


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested data as dotted names and texts: `{"optim": {"lr": 0.1}}` is `{"optim.lr": "0.1"}`."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def named_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """Path -> digest of the content, 12 hex digits."""
    found = {}
    for path in paths:
        with path.open("rb") as file:
            found[path] = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return found


def milliseconds(time: str) -> int:
    """ISO 8601 in milliseconds since 1970."""
    return int(datetime.fromisoformat(time).timestamp() * 1000)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
