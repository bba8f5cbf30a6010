"""Estimate: the hours, GPU-hours and disk that a study will still take, before any is spent; and its refusal."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.spec import ClusterSpec, SpecError, concurrency
from orchestrator.prepare.pace import Pace, earlier, this_hardware
from orchestrator.prepare.timed_steps import probe
from orchestrator.prepare.work_left import Phase, Range, Work, phases
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from trainer.config import TrainConfig, UserError

START_S = 15.0
"""Before the first epoch: Ray, and torch in its first worker. Measured on two cores (benchmarks/estimate.py)."""

PROBE_S = 10.0
"""Seconds that a study's structures are tried for where nobody asked for it."""

ENOUGH = 3
"""Structures that must have been timed before the slowest of them stands for those that were not reached."""

UNBOUNDED = 1e6
"""CPUs where a spec says only how many GPUs an autoscaler may bring up, or the other way round."""


@dataclass(frozen=True)
class Estimate:
    """What a study takes from now on. None is what cannot be said; `why` it cannot."""

    count: int
    """Runs and trials."""
    hours: Range | None
    """On the clock."""
    device_hours: Range | None
    """Of the GPUs that the runs hold, or of their CPUs where they hold none."""
    gigabytes: Range | None
    slots: int | None
    """Runs at once."""
    origins: tuple[str, ...]
    """Where the paces come from, in words."""
    why: str = ""


def estimate(
    state: StudyState,
    spec: ClusterSpec,
    store: Store,
    roots: Mapping[str, Path],
    *,
    tries: bool | None = None,
    retry_failed: bool = False,
) -> Estimate:
    """What is left of a study; with `retry_failed` also what can only fail again. `tries`: whether structures that no
    earlier run had are timed on this machine: True however long it takes, None for `PROBE_S` at most, False not at all.
    Raises UserError where one cannot be built."""
    todo = phases(state, retry_failed=retry_failed)
    if not todo:
        nothing = Range(0, 0, 0)
        return Estimate(0, nothing, nothing, nothing, None, ())
    distinct = _distinct(todo)
    paces, count, where = earlier(state.ledger, store, spec, {run.plan.key: run.plan.config for run in state.runs})
    found = {name: paces[name] for name in distinct if name in paces}
    origins = [f"{_counted(count, 'earlier run')} on {where}"] if found else []
    left = {name: config for name, config in distinct.items() if name not in found}
    if left and tries is not False:
        folders = {**{name: Path(folder) for name, folder in spec.data_roots.items()}, **roots}
        found |= (tried := probe(left, spec, store, folders, None if tries else PROBE_S))
        timed = sum(pace.epoch_s is not None for pace in tried.values())
        origins += [f"a few steps of {_counted(timed, 'structure')}, each alone on this machine"] if timed else []
        found, guessed = _filled(found)
        origins += [f"the slowest of those for {_counted(guessed, 'structure')} more"] if guessed else []
    slots, unplaced = _slots(spec)
    why = _unknown(found, distinct, spec, tries)
    hours = device_hours = None
    if not why:
        seconds = [_seconds(phase, found) for phase in todo]
        held = spec.workers * (spec.gpus_per_worker or spec.cpus_per_worker)
        device_hours = _sum([work for phase in seconds for work in phase]).times(held / 3600)
        if slots:
            hours = _on_the_clock(todo, seconds, slots).times(1 / 3600)
    return Estimate(
        sum(len(phase.work) for phase in todo),
        hours,
        device_hours,
        _gigabytes(todo, found) if found.keys() >= distinct.keys() else None,
        slots,
        tuple(origins),
        why or unplaced,
    )


def refuse(estimate: Estimate, name: str, spec: ClusterSpec, limit: float) -> None:
    """Raise UserError where a study may take more than `limit` GPU-hours, or where nobody can tell.

    The most is held against the limit: every trial to its end, every look needed. Runs without GPUs take none.
    """
    if not spec.gpus_per_worker:
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
    """One config a structure, those that train most first: where time is short, they are tried."""
    configs: dict[str, TrainConfig] = {}
    epochs: dict[str, float] = {}
    for work in (work for phase in todo for work in phase.work):
        configs.setdefault(work.structure, work.config)
        epochs[work.structure] = epochs.get(work.structure, 0.0) + work.epochs.likely
    for kind in (kind for phase in todo for kind in phase.kinds):
        configs.setdefault(kind.structure, kind.config)
        epochs.setdefault(kind.structure, 0.0)
    return {name: configs[name] for name in sorted(configs, key=lambda name: -epochs[name])}


def _filled(found: Mapping[str, Pace]) -> tuple[dict[str, Pace], int]:
    """The paces, with the slowest in place of those that were not timed where enough were; how many these are."""
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
    """Why there is no estimate of time; empty where there is."""
    missing = [name for name in distinct if name not in found or found[name].epoch_s is None]
    if not missing:
        return ""
    if spec.gpus_per_worker and not this_hardware(spec):
        return "no earlier run on such a GPU, and no GPU here to try a step on"
    which = f"{len(missing)} of {_counted(len(distinct), 'structure')}"
    if tries is False:
        return f"no earlier run of {which}; without --no-probe a few steps of each are tried"
    if tries is None:
        return f"{PROBE_S:g} s were too short to try {which}; --probe takes as long as it needs"
    return f"a step of {which} does not fit the memory that is free here"


def _slots(spec: ClusterSpec) -> tuple[int | None, str]:
    """Runs at once, else why nobody knows."""
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
    return None, "how many runs go at once is known when the cluster is joined"


def _seconds(phase: Phase, found: Mapping[str, Pace]) -> list[Range]:
    def seconds(work: Work) -> Range:
        return Range(*(found[work.structure].seconds(epochs) if epochs else 0.0 for epochs in work.epochs))

    return _bounded(list(map(seconds, phase.work)), list(map(seconds, phase.kinds)))


def _bounded(work: list[Range], kinds: Sequence[Range]) -> list[Range]:
    """The work, each from the least that any of the kinds takes to the most; as it is where there are none."""
    if not kinds:
        return work
    least, most = min(kind.least for kind in kinds), max(kind.most for kind in kinds)
    return [Range(least, one.likely, most) for one in work]


def _on_the_clock(todo: Sequence[Phase], seconds: Sequence[Sequence[Range]], slots: int) -> Range:
    """Seconds from the start to the end: within a phase the next one begins wherever one has ended."""
    ends = []
    for which in range(len(Range._fields)):
        total = START_S
        for phase, work in zip(todo, seconds, strict=True):
            free = [0.0] * min(slots, phase.beside or slots, len(work))
            for length in (each[which] for each in work):
                heapq.heapreplace(free, free[0] + length)
            total += max(free)
        ends.append(total)
    return Range(*ends)


def _gigabytes(todo: Sequence[Phase], found: Mapping[str, Pace]) -> Range:
    """Of checkpoints, which every run and trial keeps, and of data sets that are still to be packed."""
    kept, packed = [], {}
    for phase in todo:
        kept += _bounded(
            [_checkpoints(work, found) for work in phase.work], [_checkpoints(k, found) for k in phase.kinds]
        )
        for work in phase.work:
            data = work.config.data.model_dump_json(include={"name", "size", "options"})
            packed[data] = found[work.structure].packed
    once = sum(packed.values())
    return Range(*(value + once for value in _sum(kept))).times(1e-9)


def _checkpoints(work: Work, found: Mapping[str, Pace]) -> Range:
    return Range(*(found[work.structure].checkpoints if epochs else 0.0 for epochs in work.epochs))


def _sum(ranges: Sequence[Range]) -> Range:
    return Range(*map(sum, zip(*ranges, strict=True)))


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
