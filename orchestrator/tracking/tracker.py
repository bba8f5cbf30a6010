"""Tracker: the store's runs in MLflow. All methods are idempotent: what MLflow already holds is not sent again.

A study is an experiment `transkd/<study>` with one parent run; each run of the study is a child of it. An arm of
several seeds has a run of its own, which is made when they have ended and then is their parent. A run is looked up by
its tags before it is created.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.tracking.arm_record import ArmRecord
from orchestrator.tracking.mlflow_models import Models
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
"""The ledger's status -> MLflow's. The tag `transkd.status` has the ledger's."""
MARKER = "epoch"
"""A metric of every epoch: where its history has a step, all points of that epoch have arrived."""

NOTE = "mlflow.note.content"
"""MLflow's tag of a run's description. It is set once: people may edit it on the page."""
STUDY_NOTE = (
    "The table is of the last epoch of each run: its model `last`, from last.pt. "
    "Its model `best`, from best.pt, is of the epoch with the highest val/miou."
)
SEEDS = "seeds"
"""The role of a run that holds the numbers of an arm over its seeds."""
ARM_NOTE = (
    "All seeds of an arm: `seeds/mean`, `seeds/std` and `seeds/n` of the table; the difference to `transkd.vs` with "
    "its interval and p; `verdict` is 1 for better, -1 for worse, 0 for all others; the curve is the mean over seeds."
)
OURS = "name LIKE 'transkd/%'"
"""Selects our experiments on a shared server."""


@dataclass
class _Mirrored:
    """What the server is known to hold of one run."""

    id: str
    status: str
    tags: dict[str, str]
    params: set[str] = field(default_factory=set)
    metrics: set[str] = field(default_factory=set)
    """Those that a run has once, not in every epoch."""
    epochs: set[int] | None = None
    """None until asked."""


@dataclass
class _Study:
    experiment: str
    parent: _Mirrored
    runs: dict[str, _Mirrored] = field(default_factory=dict)
    """By our run id."""
    arms: dict[str, _Mirrored] = field(default_factory=dict)
    """The runs over all seeds of an arm, by its name."""


class Tracker:
    """Brings MLflow up to date with one store. `owner` is the store's identity: stores may share a server.

    Every method raises what MLflow raises; call `why_unreachable` then.
    """

    def __init__(self, server: Server, owner: str) -> None:
        self.server = server
        self._models = Models(server)
        self._mine = f"tags.`transkd.store` = '{owner}'"
        self._owner = owner
        self._studies: dict[str, _Study] = {}

    def why_unreachable(self) -> str:
        """Why the server cannot be reached; empty where it can. Forgets what the server holds, as a failed call leaves
        that unknown."""
        self._studies.clear()
        try:
            self.server.ask()
        except Exception as error:
            return in_one_line(error)
        return ""

    def open(self, study: str) -> None:
        """Set the study's parent run to RUNNING."""
        parent = self._study(study).parent
        self.server.reopen(parent.id)
        self._log(parent, tags={"transkd.status": "running"})

    def mirror(self, record: Record) -> None:
        """Bring one run up to date."""
        status = STATUS[record.status]
        content = "" if status == "RUNNING" else record.content
        study = self._study(record.study)
        known = study.runs.get(record.run_id)
        if content and known is not None and known.tags.get("transkd.mirrored") == content:
            return
        there = self._child(study, record)
        self._send_numbers(there, record, {} if status == "RUNNING" else record.summary)
        if status == "RUNNING":
            if there.status != "RUNNING":
                self.server.reopen(there.id)
                there.status = status
            return
        sent = self._send_files(there, record.files)
        if record.per_class:
            self.server.log_text(there.id, "per_class_iou.json", json.dumps(record.per_class, indent=1))
        self._models.send_inputs(there.id, record.splits)
        self._models.send(study.experiment, there.id, record.students, record.tags)
        note = {NOTE: record.note} if record.note and NOTE not in there.tags else {}
        self.server.end(there.id, status)
        there.status = status
        # last: `transkd.mirrored` means that all of the above has arrived
        self._log(there, tags={**sent, **note, "transkd.mirrored": content})

    def arms(self, study: str, records: Iterable[ArmRecord]) -> None:
        """Bring the runs of arms up to date, and set them as the parents of their seeds."""
        there = self._study(study)
        for record in records:
            known = there.arms.get(record.arm)
            if known is None or known.tags.get("transkd.mirrored") != record.content:
                there.arms[record.arm] = self._send_arm(there, record)
                if known is not None:  # MLflow cannot change a metric or a parameter
                    self.server.delete(known.id)
            for child in (there.runs[run_id] for run_id in record.run_ids if run_id in there.runs):
                self._log(child, tags={"mlflow.parentRunId": there.arms[record.arm].id})

    def _send_arm(self, study: _Study, record: ArmRecord) -> _Mirrored:
        tags = {
            "mlflow.runName": record.arm,
            "mlflow.parentRunId": study.parent.id,
            "transkd.role": SEEDS,
            "transkd.arm": record.arm,
            "transkd.store": self._owner,
            "transkd.status": "finished",
            NOTE: ARM_NOTE,
        }
        made = _Mirrored(self.server.create(study.experiment, tags), "RUNNING", cut(tags))
        self._log(made, [record.points], record.params, record.tags)
        self.server.end(made.id, "FINISHED")
        self._log(made, tags={"transkd.mirrored": record.content})
        return made

    def files(self, study: str, paths: Iterable[Path]) -> None:
        """Send a study's files (its table, its report) to its parent run, those that have changed."""
        parent = self._study(study).parent
        self._log(parent, tags=self._send_files(parent, paths))

    def close(self, study: str) -> None:
        """End the study's parent run."""
        parent = self._study(study).parent
        self._log(parent, tags={"transkd.status": "finished"})
        self.server.end(parent.id, "FINISHED")

    def reconcile(self, driven: Callable[[], Collection[str]] = tuple) -> None:
        """Set to KILLED the runs that dead drivers of this store left RUNNING, but for those of the studies that
        `driven` returns, which other drivers run; it is asked before each.

        Call it while nothing of this study trains. A resumed run reopens its MLflow run.
        """
        left = f"{self._mine} and attributes.status = 'RUNNING'"
        studies = {found: name.removeprefix("transkd/") for name, found in self.server.experiments(OURS).items()}
        for run in list(self.server.runs(studies, left)):
            if studies[run.info.experiment_id] in driven():
                continue
            self.server.log(run.info.run_id, tags={"transkd.status": "interrupted"})
            self.server.end(run.info.run_id, "KILLED")
        self._studies.clear()

    def _study(self, name: str) -> _Study:
        """The study's experiment, parent run (created where absent) and child runs."""
        if name in self._studies:
            return self._studies[name]
        experiment = self.server.experiment(f"transkd/{name}", name)
        parent = None
        runs, arms = {}, {}
        for run in self.server.runs([experiment], self._mine):
            there = _Mirrored(
                run.info.run_id, run.info.status, run.data.tags, set(run.data.params), set(run.data.metrics)
            )
            if there.tags.get("transkd.role") == "study":
                parent = there
            elif there.tags["transkd.role"] == SEEDS:
                arms[there.tags["transkd.arm"]] = there
            else:
                runs[there.tags["transkd.run_id"]] = there
        if parent is None:
            tags = {"mlflow.runName": name, "transkd.role": "study", "transkd.store": self._owner, NOTE: STUDY_NOTE}
            parent = _Mirrored(self.server.create(experiment, tags), "RUNNING", tags)
        self._studies[name] = _Study(experiment, parent, runs, arms)
        return self._studies[name]

    def _child(self, study: _Study, record: Record) -> _Mirrored:
        """The MLflow run of this run, created where absent."""
        tags = self._tags(study, record)
        there = study.runs.get(record.run_id)
        if there is None:
            there = _Mirrored(self.server.create(study.experiment, tags), "RUNNING", cut(tags), epochs=set())
            study.runs[record.run_id] = there
        return there

    def _tags(self, study: _Study, record: Record) -> dict[str, str]:
        above = study.arms.get(record.arm, study.parent) if record.role == "arm" else study.parent
        return {"mlflow.parentRunId": above.id, "transkd.store": self._owner, **record.tags}

    def _send_numbers(self, there: _Mirrored, record: Record, summary: Mapping[str, float]) -> None:
        """Send the parameters, tags, epochs and numbers of the whole run that have not arrived."""
        if there.epochs is None:
            there.epochs = self.server.steps(there.id, MARKER)
        epochs = record.points(there.epochs)
        once = {name: value for name, value in summary.items() if name not in there.metrics}
        points = [[Point(name, value, 0, record.ended_ms)] for name, value in once.items()]
        self._log(there, [*epochs.values(), *points], record.params, self._tags(self._studies[record.study], record))
        there.epochs.update(epochs)
        there.metrics.update(once)

    def _send_files(self, there: _Mirrored, paths: Iterable[Path]) -> dict[str, str]:
        """Send the files that the server lacks or that have changed since they were sent; the tag that records them."""
        now = named_digests(paths)
        held = json.loads(there.tags.get("transkd.files", "{}"))
        changed = {path: digest for path, digest in now.items() if held.get(path.name) != digest}
        for path in changed:
            self.server.log_file(there.id, path)
        return {"transkd.files": json.dumps(held | {path.name: digest for path, digest in changed.items()})}

    def _log(
        self,
        there: _Mirrored,
        groups: Iterable[list[Point]] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Send points, and the parameters and tags that the server lacks."""
        new = {name: text for name, text in (params or {}).items() if name not in there.params}
        changed = {name: text for name, text in cut(tags or {}).items() if there.tags.get(name) != text}
        self.server.log(there.id, groups, new, changed)
        there.params.update(new)
        there.tags.update(changed)
