"""Ledgers of a study, as drivers write them: by hand or drawn; and the cell of its table that counts an arm's runs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from ablations.study.plan import Run, expand
from ablations.study.schema import Study
from orchestrator.report.table import table
from orchestrator.state.study_state import StudyState
from orchestrator.store.ledger import Ledger
from trainer.config import RunIds, Sources, TrainConfig, data_key

BASE = {
    "data": {"name": "scenes", "size": [32, 64]},
    "student": {"name": "segformer_tiny"},
    "teacher": {"name": "segformer_mini", "train": {"epochs": 2, "init": "teacher.pt"}},
    "optim": {"epochs": 3, "global_batch": 8},
    "distill": {"csf": {}},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "alone": {"distill": {}},
    "taught": {},
    "started": {"distill": {}, "student.init": "backbone.pt"},
    "bought": {"teacher": {"name": "segformer_b0", "checkpoint": "bought.pt"}},
    "elsewhere": {"distill": {}, "data.options": {"train": 16}},
}
FILES = ("backbone.pt", "teacher.pt", "bought.pt")
MINE, OTHER = "mine", "another"
WHOLE = ("config", "data", "weights", "environment")
"""What a driver records of a run."""
START = datetime(2026, 1, 1, tzinfo=UTC)


def make(variants=("alone",), seeds: Any = 6, name: str = MINE, **more: Any) -> Study:
    """A study of some of the variants."""
    chosen = {arm: VARIANTS[arm] for arm in variants}
    return Study.model_validate({"name": name, "base": BASE, "variants": chosen, "seeds": seeds, **more})


def prints(data: str) -> tuple[str, str]:
    """The fingerprints of data that is called A or B."""
    return f"{data} train", f"{data} val"


def sources_of(configs: list[TrainConfig], numerics: int, data: str, weights: str) -> Sources:
    """Sources of which all data is A or B, and all weights are V or W."""
    return Sources(numerics, {data_key(c.data): prints(data) for c in configs}, dict.fromkeys(FILES, weights))


@dataclass
class Written:
    """Events of a ledger, each a second after the one before."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def add(self, event: str, **more: Any) -> None:
        time = (START + timedelta(seconds=len(self.events))).isoformat(timespec="milliseconds")
        self.events.append({"event": event, "time": time, **more})

    def launched(self, study: str, numerics: int = 1, sources: Sources | None = None) -> None:
        """A driver begins; one of an earlier version does not say what the runs read."""
        said = {"sources": sources.plain()} if sources else {}
        self.add("study", study=study, environment={"numerics": numerics}, **said)

    def run(
        self,
        run: Run,
        sources: Sources,
        status: str = "finished",
        *,
        study: str = MINE,
        cause: str = "",
        facts: tuple[str, ...] = WHOLE,
    ) -> None:
        """A run as a driver records it, with those of the facts that its version wrote."""
        config, plain = run.config, run.config.model_dump(mode="json")
        run_id = RunIds(sources).of(config)
        who = {"run_id": run_id, "key": run.key, "study": study, "arm": run.arm, "seed": run.seed, "role": run.role}
        self.add("started", **who, **({"config": plain} if "config" in facts else {}))
        if status == "running":
            return
        weights = {}
        if config.student.init != "scratch":
            weights["student"] = {"file": "/there", "sha256": sources.weights[config.student.init]}
        if config.teacher is not None:
            weights["teacher"] = {"file": "/there", "sha256": sources.weights.get(config.teacher.checkpoint, "ours")}
        found = {
            "data": dict(zip(("train", "val"), sources.data[data_key(config.data)], strict=True)),
            "weights": weights,
            "environment": {"numerics": sources.numerics},
        }
        score = 50.0 + run.seed + len(run.arm) / 10 + len(self.events) % 7
        end = {"last": {"epoch": 3.0, "val/miou": score}} | {name: found[name] for name in found if name in facts}
        if status != "finished":
            end = {"cause": cause, "reason": f"of {cause}"} if cause else {}
        self.add(status, **who, **end)

    def ledger(self, folder: Path) -> Ledger:
        """The file, written at once: the ledger's own writer waits for the disk at every event."""
        path = folder / "ledger.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(event) + "\n" for event in self.events))
        return Ledger(path)


FACTS = (WHOLE, WHOLE, ("config", "data", "environment"), ("config", "environment"), ("data", "environment"), ())
"""The same, and what drivers of earlier versions have."""
ENDS = st.sampled_from(
    [("finished", "")] * 4 + [("failed", "nan"), ("failed", "bug"), ("running", ""), ("interrupted", "")]
)


@st.composite
def worlds(draw, facts=FACTS, *, old=True):
    """A study, events of a ledger that is about it and another, and sources that a driver may have found."""
    arms = draw(st.lists(st.sampled_from(list(VARIANTS)), min_size=1, max_size=3, unique=True))
    facts = draw(st.lists(st.sampled_from(facts), min_size=1, max_size=2))
    looks = len(arms) > 1 and draw(st.booleans())
    study = make(arms, {"looks": [2, 4], "until": "decided"} if looks else draw(st.integers(1, 4)))
    plan = expand(study)
    strangers = expand(make(["alone", "started"], 2, base={**BASE, "optim": {"epochs": 7}}))
    written = Written()
    configs = [run.config for run in plan + strangers]

    def some_sources() -> Sources:
        weights, data = draw(st.sampled_from("VW")), draw(st.sampled_from("AB"))
        return sources_of(configs, draw(st.sampled_from([1, 2])), data, weights)

    # a few launches, each with sources of its own, and runs that it or another study has made
    for number in range(draw(st.integers(1, 4))):
        whose, now = draw(st.sampled_from([MINE, MINE, OTHER])), some_sources()
        if number or draw(st.booleans()):
            written.launched(whose, now.numerics, now if not old or draw(st.booleans()) else None)
        which = draw(st.lists(st.sampled_from([*plan, *plan, *strangers]), max_size=8, unique_by=lambda run: run.key))
        for run in which:
            status, cause = draw(ENDS)
            written.run(run, now, status, study=whose, cause=cause, facts=draw(st.sampled_from(facts)))
    given = some_sources()
    lacking = draw(st.sampled_from(["", "", "data", *FILES]))
    data = dict(list(given.data.items())[1:]) if lacking == "data" else given.data
    weights = {name: value for name, value in given.weights.items() if name != lacking}
    return study, plan, written, Sources(given.numerics, data, weights)


def n_of(state: StudyState, arm: str) -> str:
    """The cell of an arm that says how many seeds stand in its row."""
    shown = table(state)
    place = [column.heading for column in shown.columns].index("n")
    return next(row.cells[place] for row in shown.rows if row.values["arm"] == arm)
