"""What a study is by now: of which runs it consists, what of the ledger counts, and why the rest does not."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.statistics.outcome import Outcome
from ablations.statistics.seed_looks import due
from ablations.study.plan import Run, expand
from ablations.study.schema import Study
from orchestrator.report import bundle
from orchestrator.report.table import table
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from trainer.config import NUMERICS_VERSION, RunIds, Sources, TrainConfig, data_key, identity, teacher_run

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


# A model of the state, written from what it is to do: it looks at every event, and at every run, each time anew.


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


def assert_is(state: StudyState, found: list[Expected]) -> None:
    """The state says of every run, and of the whole, what the model says."""
    assert [run.plan.key for run in state.runs] == [one.run.key for one in found]
    for run, one in zip(state.runs, found, strict=True):
        assert (run.run_id, run.other) == (one.run_id, one.other), run.label
        assert run.run.status == (one.entry.status if one.entry else "missing"), run.label
        assert run.finished is bool(one.entry and one.entry.status == "finished"), run.label
    outcomes = outcomes_of(found)
    assert {key: (o.status, o.metrics) for key, o in state.outcomes.items()} == {
        key: (o.status, o.metrics) for key, o in outcomes.items()
    }
    now = due(state.study, [one.run for one in found], outcomes)
    assert [run.plan.key for run in state.due] == [run.key for run in now]
    assert {run.plan.key for run in state.unchecked} == {one.run.key for one in found if one.unchecked}
    notes = notes_of(found, {run.key for run in now})
    assert [note for note in state.uncounted() if note.startswith("Not counted")] == notes
    shown = table(state)
    assert [note for note in shown.explained if note.startswith("Not counted")] == notes
    counted = {
        arm: [one.entry for one in found if one.run.arm == arm and one.run in now and one.run.key in outcomes]
        for arm in dict.fromkeys(run.arm for run in now)
    }
    for arm, entries in counted.items():
        finished = [entry for entry in entries if entry.status == "finished"]
        (row,) = [row.values for row in shown.rows if row.values["arm"] == arm and "n" in row.values]
        assert row["n"] == len(finished), arm
        assert len({entry.environment.get("numerics", state.sources.numerics) for entry in finished}) <= 1, arm
        assert len({entry.prints for entry in finished if entry.prints}) <= 1, arm


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=60)
@given(worlds())
def test_a_state_is_what_its_sources_make_of_the_ledger(world):
    study, plan, written, sources = world
    with tempfile.TemporaryDirectory() as folder:
        state = StudyState(study, written.ledger(Path(folder)), sources)
        known = known_of(written.events)
        assert_is(state, expected(plan, known, sources, as_recorded=False))
        for run in state.runs:
            if run.finished:  # what it says it is, as far as it says so, is what is meant
                entry = known[run.run_id]
                assert entry.environment.get("numerics", sources.numerics) == sources.numerics
                assert entry.prints in ((), sources.data[data_key(run.plan.config.data)])


@settings(derandomize=True, deadline=None, max_examples=60)
@given(worlds())
def test_a_state_of_the_ledger_alone_goes_by_what_was_read_last(world):
    study, plan, written, _ = world
    with tempfile.TemporaryDirectory() as folder:
        state = StudyState(study, written.ledger(Path(folder)))
        known = known_of(written.events)
        sources = last_sources(written.events, known)
        assert state.sources == sources
        assert_is(state, expected(plan, known, sources, as_recorded=True))


def printed(state: StudyState) -> tuple[Any, ...]:
    """The table, as far as it is printed."""
    shown = table(state)
    return shown.title, [row.cells for row in shown.rows], shown.notes


def n_of(state: StudyState, arm: str) -> str:
    """The cell of an arm that says how many seeds stand in its row."""
    shown = table(state)
    place = [column.heading for column in shown.columns].index("n")
    return next(row.cells[place] for row in shown.rows if row.values["arm"] == arm)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(worlds([WHOLE], old=False))
def test_a_bundle_says_of_its_study_what_its_store_says(world):
    study, _, written, _ = world
    with tempfile.TemporaryDirectory() as folder:
        state = StudyState(study, written.ledger(Path(folder) / "store"))
        ledger = Written(list(bundle._events(state))).ledger(Path(folder) / "unpacked")
        assert printed(StudyState(study, ledger)) == printed(state)


def test_a_bundle_holds_the_runs_that_another_study_has_finished(tmp_path):
    study, written = make(seeds=2), Written()
    first, second = expand(study)
    now = sources_of([first.config], 1, "A", "V")
    written.launched(MINE, 1, now)
    written.run(first, now)
    written.launched(OTHER, 1, now)
    written.run(second, now, study=OTHER)
    store = Store(tmp_path / "store")
    state = StudyState(study, written.ledger(store.root))
    assert n_of(state, "alone") == "2"
    bundle.pack(study, yaml.safe_dump(study.model_dump(mode="json", exclude_unset=True)), store, tmp_path / "b.tar.gz")
    with bundle.unpacked(tmp_path / "b.tar.gz") as (again, unpacked):
        assert printed(StudyState(again, Ledger(unpacked.ledger))) == printed(state)


class Mixed:
    """A study of six seeds, all finished of one kind and then three of another."""

    def __init__(self, folder: Path, first: Sources, then: Sources, *, said: bool, facts: tuple[str, ...] = WHOLE):
        self.study, self.written = make(["alone", "started"], 6), Written()
        for sources, seeds in ((first, range(6)), (then, range(3))):
            self.written.launched(MINE, sources.numerics, sources if said else None)
            for run in expand(self.study):
                if run.seed in seeds:
                    self.written.run(run, sources, facts=facts)
        self.state = StudyState(self.study, self.written.ledger(folder))


def kinds(which: str) -> tuple[Sources, Sources]:
    """Sources, and sources that differ in what is named."""
    configs = [run.config for run in expand(make(VARIANTS))]
    of = {
        "numerics": (NUMERICS_VERSION - 1, "A", "V"),
        "data": (NUMERICS_VERSION, "A", "V"),
        "weights": (NUMERICS_VERSION, "A", "V"),
    }
    then = {
        "numerics": (NUMERICS_VERSION, "A", "V"),
        "data": (NUMERICS_VERSION, "B", "V"),
        "weights": (NUMERICS_VERSION, "A", "W"),
    }
    return sources_of(configs, *of[which]), sources_of(configs, *then[which])


MIXED = {"data": "other data", "numerics": f"numerics version {NUMERICS_VERSION - 1}"}


@pytest.mark.parametrize("said", [True, False], ids=["sources recorded", "sources inferred"])
@pytest.mark.parametrize("which", MIXED)
def test_a_row_is_of_what_was_read_last_and_the_rest_is_named(tmp_path, which, said):
    state = Mixed(tmp_path, *kinds(which), said=said).state
    assert [n_of(state, arm) for arm in ("alone", "started")] == ["3/6", "3/6"]
    assert table(state).explained[0] == f"Not counted: 3 of 6 seeds are of {MIXED[which]}: alone, started."


@pytest.mark.parametrize("said", [True, False], ids=["sources recorded", "sources inferred"])
def test_other_weights_take_seeds_from_the_arms_that_start_from_them(tmp_path, said):
    state = Mixed(tmp_path, *kinds("weights"), said=said).state
    assert [n_of(state, arm) for arm in ("alone", "started")] == ["6", "3/6"]
    assert table(state).explained[0] == "Not counted: 3 of 6 seeds are of other weights: started."


@pytest.mark.parametrize(
    "facts",
    [("data", "environment"), ("config", "data", "environment"), ("data", "weights", "environment")],
    ids=" and ".join,
)
@pytest.mark.parametrize("which", MIXED)
def test_ledgers_that_lack_configs_or_weights_are_not_mixed_either(tmp_path, which, facts):
    state = Mixed(tmp_path, *kinds(which), said=False, facts=facts).state
    assert [n_of(state, arm) for arm in ("alone", "started")] == ["3/6", "3/6"]
    assert table(state).explained[0] == f"Not counted: 3 of 6 seeds are of {MIXED[which]}: alone, started."


def test_going_back_to_the_first_data_counts_its_runs_again(tmp_path):
    first, then = kinds("data")
    mixed = Mixed(tmp_path, first, then, said=True)
    assert n_of(StudyState(mixed.study, mixed.state.ledger, first), "alone") == "6"
    mixed.written.launched(MINE, first.numerics, first)
    state = StudyState(mixed.study, mixed.written.ledger(tmp_path))
    assert n_of(state, "alone") == "6"
    assert state.uncounted() == []


def test_a_single_seed_is_spoken_of_as_one(tmp_path):
    first, then = kinds("data")
    study, written = make(seeds=1), Written()
    written.run(*expand(study), first)
    written.launched(MINE, then.numerics, then)
    state = StudyState(study, written.ledger(tmp_path))
    assert state.uncounted() == ["Not counted: 1 of 1 seed is of other data: alone."]
    assert [run.finished for run in state.runs] == [False]


def test_runs_of_another_installation_are_counted_and_it_is_said(tmp_path):
    configs = [run.config for run in expand(make())]
    earlier = sources_of(configs, NUMERICS_VERSION + 1, "A", "V")
    study, written = make(seeds=2), Written()
    written.launched(MINE, earlier.numerics, earlier)
    for run in expand(study):
        written.run(run, earlier)
    state = StudyState(study, written.ledger(tmp_path))
    assert n_of(state, "alone") == "2"
    assert state.uncounted() == [
        f"Computed by numerics version {NUMERICS_VERSION + 1}; this installation is version {NUMERICS_VERSION}, and "
        "`transkd run` would train these runs again."
    ]


def test_what_another_study_made_of_other_data_says_nothing_of_these_seeds(tmp_path):
    first, then = kinds("data")
    study, written = make(seeds=2), Written()
    for run in expand(study):
        written.run(run, first, study=OTHER)
    written.launched(MINE, then.numerics, then)
    state = StudyState(study, written.ledger(tmp_path))
    assert n_of(state, "alone") == "0/2"
    assert state.uncounted() == []


def test_what_another_study_left_unfinished_is_no_run_of_this_one(tmp_path):
    study, written = make(seeds=4), Written()
    now = sources_of([run.config for run in expand(study)], 1, "A", "V")
    ends = [("failed", "nan"), ("failed", "lost"), ("running", ""), ("interrupted", "")]
    for run, (status, cause) in zip(expand(study), ends, strict=True):
        written.run(run, now, status, cause=cause, study=OTHER)
    state = StudyState(study, written.ledger(tmp_path), now)
    assert [run.run.status for run in state.runs] == ["failed", "missing", "missing", "missing"]
    assert [state.is_final_failure(run) for run in state.runs] == [True, False, False, False]


def test_a_run_whose_sources_are_not_known_is_missing_and_unchecked_where_its_config_has_finished(tmp_path):
    study, written = make(["alone", "started"], 1), Written()
    now = sources_of([run.config for run in expand(study)], 1, "A", "V")
    for run in expand(study):
        written.run(run, now)
    ledger = written.ledger(tmp_path)
    for lacking, unchecked in (
        (Sources(1, now.data, now.weights), []),
        (Sources(1, now.data, {}), ["started"]),
        (Sources(1, {}, now.weights), ["alone", "started"]),
    ):
        state = StudyState(study, ledger, lacking)
        assert [run.plan.arm for run in state.unchecked] == unchecked
        assert [run.plan.arm for run in state.runs if run.finished] == [
            run.plan.arm for run in state.runs if run.plan.arm not in unchecked
        ]
