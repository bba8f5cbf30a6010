"""A model of a study's state, written from what it is to do: it looks at every event and every run each time anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ablations.statistics.outcome import Outcome
from ablations.study.plan import Run
from tests.orchestrator.state.ledgers import FILES, MINE
from trainer.config import NUMERICS_VERSION, Sources, TrainConfig, data_key, identity, teacher_run


class Known:
    """What a ledger's events say of one run."""

    def __init__(self, run_id: str, events: list[dict[str, Any]]) -> None:
        self.run_id = run_id
        self.status, self.cause, self.changed, self.key = "missing", "", "", ""
        self.studies: set[str] = set()
        self.last: dict[str, float] = {}
        self.facts: dict[str, Any] = {"config": {}, "data": {}, "weights": {}}
        self.environment: dict[str, Any] = {}
        driver: dict[str, Any] = {}
        for event in events:
            if event["event"] == "study":
                driver = event["environment"]
            if event.get("run_id") != run_id:
                continue
            self.key = event["key"]
            self.studies.add(event["study"])
            self.status = {"started": "running"}.get(event["event"], event["event"])
            self.changed, self.cause = event["time"], event.get("cause", "")
            self.last = event.get("last", self.last)
            self.facts |= {name: event[name] for name in self.facts if name in event}
            self.environment = {**(driver if self.status == "running" else self.environment)}
            self.environment |= event.get("environment", {})

    @property
    def prints(self) -> tuple[str, ...]:
        return tuple(self.facts["data"].values())


def known_of(events: list[dict[str, Any]]) -> dict[str, Known]:
    ids = dict.fromkeys(event["run_id"] for event in events if "run_id" in event)
    return {run_id: Known(run_id, events) for run_id in ids}


def id_of(config: TrainConfig, sources: Sources) -> str | None:
    """The id of a config's run; None where the sources lack a part."""
    parts: dict[str, str | None] = {}
    if config.student.init != "scratch":
        parts["student"] = sources.weights.get(config.student.init)
    if config.teacher is not None and config.teacher.train is not None:
        parts["teacher"] = id_of(teacher_run(config), sources)
    elif config.teacher is not None:
        parts["teacher"] = sources.weights.get(config.teacher.checkpoint)
    data = sources.data.get(data_key(config.data))
    if data is None or None in parts.values():
        return None
    return identity(config.key, sources.numerics, data, parts)


def last_sources(events: list[dict[str, Any]], known: dict[str, Known]) -> Sources:
    """What the study's last launch says, and for what it does not say, the finished runs, its own before others."""
    launches = [event for event in events if event["event"] == "study" and event["study"] == MINE]
    launch = launches[-1] if launches else {}
    data: dict[str, tuple[str, ...]] = {}
    weights: dict[str, str] = {}
    said = launch.get("sources", {"data": {}, "weights": {}})
    finished = sorted((run for run in known.values() if run.status == "finished"), key=lambda run: run.changed)
    for run in [run for own in (False, True) for run in finished if (MINE in run.studies) is own]:
        if not run.facts["config"]:
            continue
        config = TrainConfig.model_validate(run.facts["config"])
        if run.facts["data"]:
            data[data_key(config.data)] = run.prints
        for name, file in (("student", config.student.init), ("teacher", config.teacher and config.teacher.checkpoint)):
            if file in FILES and name in run.facts["weights"]:
                weights[file] = run.facts["weights"][name]["sha256"]
    data |= {key: tuple(value) for key, value in said["data"].items()}
    numerics = said.get("numerics") or launch.get("environment", {}).get("numerics") or NUMERICS_VERSION
    return Sources(numerics, data, weights | said["weights"])


@dataclass
class Expected:
    """What the state is to say of one run."""

    run: Run
    run_id: str
    entry: Known | None
    other: str = ""
    unchecked: bool = False


def why_other(found: Known, run: Run, sources: Sources) -> str:
    numerics = found.environment.get("numerics", sources.numerics)
    if numerics != sources.numerics:
        return f"numerics version {numerics}"
    if not found.facts["data"]:
        return "other data or weights"
    return "other weights" if found.prints == sources.data.get(data_key(run.config.data)) else "other data"


def expected(plan: list[Run], known: dict[str, Known], sources: Sources, *, as_recorded: bool) -> list[Expected]:
    """What the state is to say of each run."""
    result = []
    for run in plan:
        of_key = sorted((found for found in known.values() if found.key == run.key), key=lambda found: found.changed)
        finished = [found for found in of_key if found.status == "finished"]
        own = [found for found in of_key if MINE in found.studies]
        run_id = id_of(run.config, sources)
        if run_id is None:
            one = Expected(run, "", None, unchecked=bool(finished))
            if as_recorded and (candidates := own or finished):
                one = assumed(run, candidates[-1], known, sources, plan)
            result.append(one)
            continue
        found = known.get(run_id)
        counts = found and (found.status == "finished" or found.cause == "nan" or MINE in found.studies)
        one = Expected(run, run_id, found if counts else None)
        before = [found for found in finished if MINE in found.studies]
        if before and not (counts and found.status == "finished"):
            one.other = why_other(before[-1], run, sources)
        result.append(one)
    return result


def assumed(run: Run, found: Known, known: dict[str, Known], sources: Sources, plan: list[Run]) -> Expected:
    """Of a ledger that does not say what is read: the last run of the config, unless what it says is not what the last
    finished run of such data says."""
    if found.status != "finished":
        return Expected(run, found.run_id, found)
    numerics = found.environment.get("numerics", sources.numerics)
    data = sources.data.get(data_key(run.config.data), last_prints(run, known, plan))
    if numerics == sources.numerics and (not found.facts["data"] or data is None or found.prints == data):
        return Expected(run, found.run_id, found)
    return Expected(run, "", None, why_other(found, run, sources) if MINE in found.studies else "", unchecked=True)


def last_prints(run: Run, known: dict[str, Known], plan: list[Run]) -> tuple[str, ...] | None:
    """The data of the study's last finished run of the same data section, whether or not its config is recorded."""
    alike = {other.key for other in plan if data_key(other.config.data) == data_key(run.config.data)}
    finished = [one for one in known.values() if one.status == "finished" and one.key in alike and one.facts["data"]]
    finished.sort(key=lambda one: (MINE in one.studies, one.changed))
    return finished[-1].prints if finished else None


def outcomes_of(found: list[Expected]) -> dict[str, Outcome]:
    words = {"finished": "finished", "failed": "failed"}
    return {
        one.run.key: Outcome(words.get(one.entry.status, "running"), one.entry.last)
        for one in found
        if one.entry is not None
    }


def notes_of(found: list[Expected], now: set[str]) -> list[str]:
    """The notes on what is not counted, but for that on this installation's numerics."""
    stand = [one for one in found if one.run.key in now]
    kinds: dict[tuple[int, int, str], list[str]] = {}
    for arm, other in dict.fromkeys((one.run.arm, one.other) for one in stand if one.other):
        seeds = [one for one in stand if one.run.arm == arm]
        count = sum(one.other == other for one in seeds)
        kinds.setdefault((count, len(seeds), other), []).append(arm)
    return [
        f"Not counted: {n} of {of} {'seed' if of == 1 else 'seeds'} {'is' if n == 1 else 'are'} of {other}: "
        + ", ".join(arms)
        + "."
        for (n, of, other), arms in kinds.items()
    ]
