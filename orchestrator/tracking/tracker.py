"""Tracker: the store's runs as MLflow shows them. Everything here can be said again: what is there is not sent again.

A study is an experiment `transkd/<study>` holding one parent run; each run of the study is a child of it, found by
its tags before it is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.tracking.mlflow_server import Point, Server, cut
from orchestrator.tracking.run_record import Record, named_digests
from orchestrator.tracking.sender import in_one_line

STATUS = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "stopped": "KILLED",
    "interrupted": "KILLED",
}
"""The ledger's words in MLflow's. The ledger's own word is the tag `transkd.status`."""
MARKER = "epoch"
"""A metric of every epoch: where its history has a step, that epoch's points have arrived whole."""

OURS = "name LIKE 'transkd/%'"
"""Picks our experiments on a server that others use too."""


@dataclass
class _Mirrored:
    """What the server is known to hold of one run."""

    id: str
    status: str
    tags: dict[str, str]
    params: set[str]
    epochs: set[int] | None = None
    """None until asked."""


@dataclass
class _Study:
    experiment: str
    parent: _Mirrored
    runs: dict[str, _Mirrored] = field(default_factory=dict)
    """By our run id."""


class Tracker:
    """Brings MLflow up to date with one store. `owner` names it: stores that share a server leave each other alone.

    Every method raises what MLflow raises; `why_unreachable` is to be asked then.
    """

    def __init__(self, server: Server, owner: str) -> None:
        self.server = server
        self._mine = f"tags.`transkd.store` = '{owner}'"
        self._owner = owner
        self._studies: dict[str, _Study] = {}

    def why_unreachable(self) -> str:
        """Why the server cannot be reached; empty where it can. What it holds is asked anew: after a call that failed,
        nobody knows."""
        self._studies.clear()
        try:
            self.server.ask()
        except Exception as error:
            return in_one_line(error)
        return ""

    def open(self, study: str) -> None:
        """Have the study's parent run stand as running."""
        parent = self._study(study).parent
        self.server.reopen(parent.id)
        self._tag(parent, {"transkd.status": "running"})

    def mirror(self, record: Record) -> None:
        """Bring one run up to date."""
        status = STATUS[record.status]
        content = "" if status == "RUNNING" else record.content
        study = self._study(record.study)
        known = study.runs.get(record.run_id)
        if content and known is not None and known.tags.get("transkd.mirrored") == content:
            return
        there = self._child(study, record)
        self._send_params(there, record.params)
        self._send_epochs(there, record)
        if status == "RUNNING":
            if there.status != "RUNNING":
                self.server.reopen(there.id)
                there.status = status
            return
        self._send_summary(there, record)
        self._send_files(there, record.files)
        if record.per_class:
            self.server.log_text(there.id, "per_class_iou.json", json.dumps(record.per_class, indent=1))
        self.server.end(there.id, status)
        there.status = status
        # Last, for it says that all of the above has arrived.
        self._tag(there, {"transkd.mirrored": content})

    def files(self, study: str, paths: Iterable[Path]) -> None:
        """Put a study's files (its table, its report) on its parent run; each is sent when it has changed."""
        self._send_files(self._study(study).parent, paths)

    def close(self, study: str) -> None:
        """End the study's parent run."""
        parent = self._study(study).parent
        self._tag(parent, {"transkd.status": "finished"})
        self.server.end(parent.id, "FINISHED")

    def reconcile(self) -> None:
        """Mark as killed what a dead driver of this store left RUNNING, in all studies.

        Call it under the store's lease, while nothing trains. A resumed run opens its MLflow run again.
        """
        left = f"{self._mine} and attributes.status = 'RUNNING'"
        for run in self.server.runs(self.server.experiments(OURS), left):
            self.server.tag(run.info.run_id, {"transkd.status": "interrupted"})
            self.server.end(run.info.run_id, "KILLED")
        self._studies.clear()

    def _study(self, name: str) -> _Study:
        """The study's experiment and parent run, made where absent, with what is known of its children."""
        if name in self._studies:
            return self._studies[name]
        experiment = self.server.experiment(f"transkd/{name}", name)
        parent = None
        runs = {}
        for run in self.server.runs([experiment], self._mine):
            there = _Mirrored(run.info.run_id, run.info.status, run.data.tags, set(run.data.params))
            if there.tags.get("transkd.role") == "study":
                parent = there
            else:
                runs[there.tags["transkd.run_id"]] = there
        if parent is None:
            tags = {"mlflow.runName": name, "transkd.role": "study", "transkd.store": self._owner}
            parent = _Mirrored(self.server.create(experiment, tags), "RUNNING", tags, set())
        self._studies[name] = _Study(experiment, parent, runs)
        return self._studies[name]

    def _child(self, study: _Study, record: Record) -> _Mirrored:
        """The MLflow run of this run, made where absent, with its tags."""
        tags = {"mlflow.parentRunId": study.parent.id, "transkd.store": self._owner, **record.tags}
        there = study.runs.get(record.run_id)
        if there is None:
            there = _Mirrored(self.server.create(study.experiment, tags), "RUNNING", cut(tags), set(), set())
            study.runs[record.run_id] = there
        self._tag(there, tags)
        return there

    def _send_params(self, there: _Mirrored, params: Mapping[str, str]) -> None:
        self.server.log_params(there.id, {name: text for name, text in params.items() if name not in there.params})
        there.params.update(params)

    def _send_epochs(self, there: _Mirrored, record: Record) -> None:
        """Send the epochs that have not arrived."""
        if there.epochs is None:
            there.epochs = self.server.steps(there.id, MARKER)
        missing = record.points(there.epochs)
        self.server.log_points(there.id, missing.values())
        there.epochs.update(missing)

    def _send_summary(self, there: _Mirrored, record: Record) -> None:
        held = self.server.metrics(there.id)
        missing = [
            [Point(name, value, 0, record.ended_ms)] for name, value in record.summary.items() if name not in held
        ]
        self.server.log_points(there.id, missing)

    def _send_files(self, there: _Mirrored, paths: Iterable[Path]) -> None:
        """Send the files that are absent on the server, or were of another content when they were sent."""
        now = named_digests(paths)
        held = json.loads(there.tags.get("transkd.files", "{}"))
        changed = {path: digest for path, digest in now.items() if held.get(path.name) != digest}
        for path in changed:
            self.server.log_file(there.id, path)
        self._tag(there, {"transkd.files": json.dumps(held | {path.name: digest for path, digest in changed.items()})})

    def _tag(self, there: _Mirrored, tags: Mapping[str, str]) -> None:
        changed = {name: text for name, text in cut(tags).items() if there.tags.get(name) != text}
        if changed:
            self.server.tag(there.id, changed)
            there.tags.update(changed)
