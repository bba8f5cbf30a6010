"""Estimate of the hours, GPU-hours and disk that the rest of a study takes, and the check of --max-gpu-hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cluster.concurrency import Shape, concurrency, shape_of
from cluster.machine_types import machines_for
from cluster.spec import ClusterSpec, SpecError, spec_of, variants
from orchestrator.prepare.cohort_costs import CohortCosts
from orchestrator.prepare.jobs import Preparer
from orchestrator.prepare.pace import Pace, measured_paces, this_hardware
from orchestrator.prepare.room import specs_of
from orchestrator.prepare.rounds import Round, on_the_clock, rounds_of
from orchestrator.prepare.timed_steps import probe
from orchestrator.prepare.work_left import PendingRun, Phase, Range, phases
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from trainer.config import TrainConfig, UserError, counted

START_S = 15.0
"""Start-up of Ray and of torch in the first worker. Measured on two cores (benchmarks/estimate.py)."""

PROBE_S = 10.0
"""Time limit of probing a study's structures, in seconds, unless --probe is given."""

ENOUGH = 3
"""From so many timed structures on, the slowest of them stands for those that were not timed."""

UNBOUNDED = 1e6
"""CPUs or GPUs of an autoscaled cluster whose spec limits only the other."""


class Share(NamedTuple):
    """The part of the work that runs of one shape do."""

    spec: ClusterSpec
    """What they are given."""
    runs: int
    slots: int | None
    """Of them at once."""
    worker_hours: Range
    """Hours of their workers, all together."""

    @property
    def workers_at_once(self) -> int:
        """Of its runs together; of a range of workers, the lower number."""
        return self.spec.least_workers * min(self.runs, self.slots or self.runs)


@dataclass(frozen=True)
class Estimate:
    """What the rest of a study takes. None is unknown, and `why` gives the reason."""

    count: int
    """Runs and trials."""
    hours: Range | None
    """Wall-clock time."""
    device_hours: Range | None
    """GPU-hours; CPU-hours where no run has a GPU."""
    gigabytes: Range | None
    slots: int | None
    """Runs at once."""
    origins: tuple[str, ...]
    """Where the measured paces come from, in words."""
    why: str = ""
    cohorts: tuple[int, ...] = ()
    """The numbers of runs that train together, of the phases where any do."""
    shares: tuple[Share, ...] = ()
    """By shape, where the time is known."""


def estimate(
    state: StudyState,
    spec: ClusterSpec,
    store: Store,
    roots: Mapping[str, Path],
    *,
    tries: bool | None = None,
    retry_failed: bool = False,
) -> Estimate:
    """What the rest of a study takes; with `retry_failed` also the runs that can only fail again. Structures without an
    earlier run are timed on this machine: without a time limit if `tries` is True, for `PROBE_S` at most if None, not
    at all if False. Raises UserError where one cannot be built."""
    todo = phases(state, retry_failed=retry_failed)
    if not todo:
        nothing = Range(0, 0, 0)
        return Estimate(0, nothing, nothing, nothing, None, ())
    parts = [
        _part(own, [_of_shape(phase, shape, spec) for phase in todo], state, store, roots, tries)
        for shape, own in specs_of(state, spec).items()
    ]
    parts = [part for part in parts if any(phase.runs for phase in part.phases)]
    why = next((part.why for part in parts if part.why), "")
    hours = None
    if not why and all(part.slots for part in parts):
        hours = Range(*(START_S + seconds for seconds in _seconds_of_all(parts))).times(1 / 3600)
    rounds = [each for part in parts for phase in part.rounds for each in phase]
    paced = all(part.has_paces for part in parts)
    return Estimate(
        sum(len(phase.runs) for phase in todo),
        hours,
        None if why else _device_hours(parts),
        _sum([_gigabytes(part.phases, part.found) for part in parts]) if paced else None,
        max((part.slots for part in parts if part.slots), default=None),
        tuple(dict.fromkeys(origin for part in parts for origin in part.origins)),
        why or next((part.unplaced for part in parts if part.unplaced), ""),
        () if why else tuple(size for each in rounds if max(each.sizes, default=1) > 1 for size in each.sizes),
        () if why else tuple(part.share for part in parts),
    )


class _Part(NamedTuple):
    """The runs of one shape."""

    spec: ClusterSpec
    phases: list[Phase]
    """Its part of each of the study's."""
    found: dict[str, Pace]
    has_paces: bool
    """Whether there is one of each structure; its time may be unknown."""
    origins: list[str]
    why: str
    slots: int | None
    unplaced: str
    rounds: list[list[Round]]
    """Of each phase; empty where a time is unknown."""

    @property
    def share(self) -> Share:
        """What it takes of the whole."""
        lengths = [length for phase in self.rounds for each in phase for length in each.lengths]
        hours = _sum(lengths).times(self.spec.least_workers / 3600)
        return Share(self.spec, sum(len(phase.runs) for phase in self.phases), self.slots, hours)


def _of_shape(phase: Phase, shape: Shape, spec: ClusterSpec) -> Phase:
    """The runs of a phase that have this shape."""

    def ours(run: PendingRun) -> bool:
        return shape_of(spec_of(spec, run.role, run.arm)) == shape

    return phase._replace(runs=list(filter(ours, phase.runs)), possible=tuple(filter(ours, phase.possible)))


def _part(
    spec: ClusterSpec,
    todo: list[Phase],
    state: StudyState,
    store: Store,
    roots: Mapping[str, Path],
    tries: bool | None,
) -> _Part:
    """The paces of the runs of one shape, and the cohorts in which they train."""
    distinct = _distinct(todo)
    costs = CohortCosts(Preparer(state.study.name, spec, store, roots).check)
    planned = {run.plan.key: run.plan.config for run in state.runs}
    paces, count, where = measured_paces(state.ledger, store, spec, planned, costs.teacher_share)
    found = {name: paces[name] for name in distinct if name in paces}
    origins = [f"{counted(count, 'earlier run')} on {where}"] if found else []
    left = {name: config for name, config in distinct.items() if name not in found}
    if left and tries is not False:
        folders = {**{name: Path(folder) for name, folder in spec.data_roots.items()}, **roots}
        found |= (tried := probe(left, spec, store, folders, None if tries else PROBE_S))
        timed = sum(pace.epoch_s is not None for pace in tried.values())
        origins += [f"a few steps of {counted(timed, 'structure')}, each alone on this machine"] if timed else []
        found, guessed = _filled(found)
        origins += [f"the slowest of those for {counted(guessed, 'structure')} more"] if guessed else []
    slots, unplaced = _slots(spec)
    why = _unknown(found, distinct, spec, tries)
    costs.paces = found
    rounds = [rounds_of(p, _seconds(p, found), spec, slots, costs) if p.runs else [] for p in ([] if why else todo)]
    return _Part(spec, todo, found, found.keys() >= distinct.keys(), origins, why, slots, unplaced, rounds)


def _seconds_of_all(parts: Sequence[_Part]) -> Range:
    """Wall-clock seconds of all phases. Shapes train side by side where each has machines of its own, and one after
    another where they share them."""
    types = [_types_for(part.share) for part in parts]
    apart = all(types) and len(set().union(*types)) == sum(map(len, types))
    phases = []
    for phase in zip(*(part.rounds for part in parts), strict=True):
        clocks = zip(*map(on_the_clock, phase), strict=True)
        phases.append(Range(*map(max if apart else sum, clocks)))
    return _sum(phases)


def _types_for(share: Share) -> set[str]:
    """The machine types on which its runs train."""
    return set(machines_for(share.spec.machine_types, *shape_of(share.spec)[1:], share.workers_at_once))


def _device_hours(parts: Sequence[_Part]) -> Range:
    """GPU-hours; where no run has a GPU, CPU-hours."""
    on_gpus = any(part.spec.gpus_per_worker for part in parts)
    return _sum(
        [
            part.share.worker_hours.times(part.spec.gpus_per_worker if on_gpus else part.spec.cpus_per_worker)
            for part in parts
        ]
    )


def refuse(estimate: Estimate, name: str, spec: ClusterSpec, limit: float) -> None:
    """Raise UserError where a study may take more than `limit` GPU-hours, or where there is no estimate.

    The upper bound is compared with the limit: no trial is stopped, and all looks are needed. Runs without GPUs take 0.
    """
    if not any(each.gpus_per_worker for each in variants(spec).values()):
        return
    if estimate.device_hours is None:
        raise UserError(
            f"--max-gpu-hours {limit:g}: {name} cannot be estimated: {estimate.why}; let one run of it finish on such "
            "a GPU first, or leave the limit out"
        )
    if estimate.device_hours.most > limit:
        raise UserError(
            f"--max-gpu-hours {limit:g}: {name} may take {estimate.device_hours.most:.3g} GPU-hours, likely "
            f"{estimate.device_hours.likely:.3g}; raise the limit, or take fewer seeds, trials or epochs"
        )


def _distinct(todo: Sequence[Phase]) -> dict[str, TrainConfig]:
    """One config of each structure, those with the most epochs first: probing has a time limit."""
    configs: dict[str, TrainConfig] = {}
    epochs: dict[str, float] = {}
    for run in (run for phase in todo for run in phase.runs):
        configs.setdefault(run.structure, run.config)
        epochs[run.structure] = epochs.get(run.structure, 0.0) + run.epochs.likely
    for kind in (kind for phase in todo for kind in phase.possible):
        configs.setdefault(kind.structure, kind.config)
        epochs.setdefault(kind.structure, 0.0)
    return {name: configs[name] for name in sorted(configs, key=lambda name: -epochs[name])}


def _filled(found: Mapping[str, Pace]) -> tuple[dict[str, Pace], int]:
    """The paces, where the slowest replaces those that were not timed if `ENOUGH` were; and the number replaced."""
    timed = [pace for pace in found.values() if pace.epoch_s is not None]
    untimed = {name: pace for name, pace in found.items() if pace.epoch_s is None}
    if len(timed) < ENOUGH or not untimed:
        return dict(found), 0
    slow = max(timed, key=lambda pace: pace.epoch_s or 0.0)
    filled = {name: Pace(slow.epoch_s, slow.once_s, pace.checkpoints, pace.packed) for name, pace in untimed.items()}
    return {**found, **filled}, len(filled)


def _unknown(
    found: Mapping[str, Pace], distinct: Mapping[str, TrainConfig], spec: ClusterSpec, tries: bool | None
) -> str:
    """Why there is no estimate of time; empty where there is one."""
    missing = [name for name in distinct if name not in found or found[name].epoch_s is None]
    if not missing:
        return ""
    if spec.gpus_per_worker and not this_hardware(spec):
        return "there is no earlier run on such a GPU, and this machine has none to time a step on"
    which = f"{len(missing)} of {counted(len(distinct), 'structure')}"
    if tries is False:
        return f"no earlier run of {which}; without --no-probe a few steps of each are tried"
    if tries is None:
        return f"{PROBE_S:g} s were too short to try {which}; --probe takes as long as it needs"
    return f"a step of {which} does not fit the memory that is free here"


def _slots(spec: ClusterSpec) -> tuple[int | None, str]:
    """The number of runs at once; None and a reason where it is unknown."""
    try:
        if spec.address == "local":
            from orchestrator.prepare.machine import here

            return concurrency(spec, *here(with_gpus=spec.gpus_per_worker > 0)), ""
        if spec.scales:
            return concurrency(spec, spec.max_cpus or UNBOUNDED, UNBOUNDED if spec.max_gpus is None else 0), ""
    except SpecError as error:
        return None, str(error)
    if spec.concurrency != "auto":
        return spec.concurrency, ""
    return None, "the number of runs at once is only known once the cluster is joined"


def _seconds(phase: Phase, found: Mapping[str, Pace]) -> list[Range]:
    def seconds(run: PendingRun) -> Range:
        return Range(*(found[run.structure].seconds(epochs) if epochs else 0.0 for epochs in run.epochs))

    return _bounded(list(map(seconds, phase.runs)), list(map(seconds, phase.possible)))


def _bounded(runs: list[Range], possible: Sequence[Range]) -> list[Range]:
    """The runs, each with the least and the most of all possible ones as bounds; unchanged where there are none."""
    if not possible:
        return runs
    least, most = min(kind.least for kind in possible), max(kind.most for kind in possible)
    return [Range(least, one.likely, most) for one in runs]


def _gigabytes(todo: Sequence[Phase], found: Mapping[str, Pace]) -> Range:
    """Disk space of the checkpoints of all runs and trials, and of data sets that are still to be packed."""
    kept, packed = [], {}
    for phase in todo:
        kept += _bounded(
            [_checkpoints(run, found) for run in phase.runs], [_checkpoints(k, found) for k in phase.possible]
        )
        for run in phase.runs:
            data = run.config.data.model_dump_json(include={"name", "size", "options"})
            packed[data] = found[run.structure].packed
    once = sum(packed.values())
    return Range(*(value + once for value in _sum(kept))).times(1e-9)


def _checkpoints(run: PendingRun, found: Mapping[str, Pace]) -> Range:
    return Range(*(found[run.structure].checkpoints if epochs else 0.0 for epochs in run.epochs))


def _sum(ranges: Sequence[Range]) -> Range:
    return Range(*map(sum, zip(*ranges, strict=True)))
