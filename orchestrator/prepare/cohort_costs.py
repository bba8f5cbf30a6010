"""What runs cost alone and together, for `form`: the teacher's part of an epoch, the rest of it, and the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from cluster.overrides import LARGEST
from cluster.spec import ClusterSpec
from orchestrator.prepare.cohorts import Cohort, Costed, form, most_runs
from orchestrator.prepare.jobs import Job
from orchestrator.prepare.machine import memory_bytes
from orchestrator.prepare.pace import Pace, measured_paces, structure
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from trainer.config import CohortKey, ModelConfig, TrainConfig, cohort_key, counted

STEP = 3.0
"""Operations of a training step of a network, over those of a forward pass: backward takes twice as many."""

STATE_BYTES = 24.0
"""Memory that a student adds to a cohort, in bytes a parameter: weight, gradient and AdamW's two moments, and half as
much again for the paths' projections. Activations are freed before the next student's turn."""

ROOM = 0.9
"""Share of the memory that cohorts may fill."""


class Planned(NamedTuple):
    """A run that is to be trained: its name, its config, the name of its teacher's weights, and the epochs done."""

    name: str
    config: TrainConfig
    teacher: str = ""
    done: int = 0


class CohortCosts:
    """The costs of runs. `check` gives the deployed student's GMACs and parameters, `paces` are what earlier runs took,
    by structure, and `memory` is what a process may take, in bytes. A run of which the memory is unknown is taken to
    fit; where a cohort does not, it is retried with fewer runs."""

    def __init__(self, check: Callable[[TrainConfig], Mapping[str, float]]) -> None:
        self.check = check
        self.paces: Mapping[str, Pace] = {}
        self.memory: float | None = None
        self._operations: dict[str, tuple[float, float, float]] = {}

    def cohorts(self, runs: Sequence[Planned], slots: int, most: int) -> list[list[str]]:
        """The names of the runs that train together, `most` at most, in the order of their start, `slots` at once."""
        if most < 2 or len(runs) < 2:
            return [[run.name] for run in runs]
        groups = _groups([cohort_key(run.config, run.teacher) for run in runs])
        structures = [structure(run.config) for run in runs]
        rate = self._rate({name: run.config for name, run in zip(structures, runs, strict=True)})
        costed = [
            self._costed(run, name, group, rate) for run, name, group in zip(runs, structures, groups, strict=True)
        ]
        return names(form(costed, slots, most))

    def teacher_share(self, config: TrainConfig) -> float:
        """The teacher's share of the time of an epoch, by the operations of the networks; 0 without a teacher."""
        student, teacher, _ = self._networks(config, structure(config))
        return teacher / (student + teacher)

    def _costed(self, run: Planned, name: str, group: str, rate: float) -> Costed:
        student, teacher, parameters = self._networks(run.config, name)
        pace = self.paces.get(name)
        epoch_s = pace.epoch_s if pace is not None and pace.epoch_s else (student + teacher) / rate
        part = epoch_s / (student + teacher)
        fits = self._fits(pace.memory, parameters) if pace is not None else LARGEST
        return Costed(run.name, group, student * part, teacher * part, (run.done, run.config.optim.epochs), fits)

    def _rate(self, configs: Mapping[str, TrainConfig]) -> float:
        """The operations a second at which the measured structures trained; 1 where none was: ratios are enough."""
        rates = [
            sum(self._networks(config, name)[:2]) / epoch_s
            for name, config in configs.items()
            if name in self.paces and (epoch_s := self.paces[name].epoch_s)
        ]
        return median(rates) if rates else 1.0

    def _networks(self, config: TrainConfig, name: str) -> tuple[float, float, float]:
        """Of a structure: operations of a step of the student and of its teacher, and the student's parameters."""
        if name not in self._operations:
            own, teacher = self.check(config), 0.0
            if config.teacher is not None and config.active:
                network = ModelConfig(name=config.teacher.name)
                alone: dict[str, object] = {"student": network, "teacher": None, "distill": {}}
                teacher = self.check(config.model_copy(update=alone))["gmacs"]
            self._operations[name] = (STEP * own["gmacs"], teacher, own["params_m"] * 1e6)
        return self._operations[name]

    def _fits(self, used: float, parameters: float) -> int:
        """The most runs that the memory of a process holds, where that of one is known."""
        if not used or self.memory is None:
            return LARGEST
        return max(1, min(LARGEST, 1 + int((ROOM * self.memory - used) / (STATE_BYTES * parameters))))


def cohorts_of(
    jobs: Sequence[Job],
    check: Callable[[TrainConfig], Mapping[str, float]],
    ledger: Ledger,
    store: Store,
    spec: ClusterSpec,
    planned: Mapping[str, TrainConfig],
    slots: int,
) -> list[list[Job]]:
    """The jobs that train together, in the order of their start, by costs that earlier runs have measured, as far as
    they have; `planned` are configs by key. The memory is known of this machine alone."""
    most = most_runs(spec)
    if most < 2 or len(jobs) < 2:
        return apart(jobs)
    costs = CohortCosts(check)
    costs.paces, _, _ = measured_paces(ledger, store, spec, planned, costs.teacher_share)
    if spec.address == "local" and (memory := memory_bytes(spec.gpus_per_worker)) is not None:
        costs.memory = memory if spec.gpus_per_worker else memory / slots
    by_id = {job.run_id: job for job in jobs}
    found = costs.cohorts([_planned(job, ledger) for job in jobs], slots, most)
    return [[by_id[run_id] for run_id in run_ids] for run_ids in found]


def apart(jobs: Sequence[Job]) -> list[list[Job]]:
    """Each job alone."""
    return [[job] for job in jobs]


def _planned(job: Job, ledger: Ledger) -> Planned:
    run = ledger.run(job.run_id)
    done = min(len(run.epochs), job.epochs - 1) if run is not None else 0
    return Planned(job.run_id, job.run.config, job.run.needs or "", done)


def names(cohorts: Iterable[Cohort]) -> list[list[str]]:
    """The names of the runs of each cohort."""
    return [[run.name for run in cohort.runs] for cohort in cohorts]


def in_words(sizes: Sequence[int]) -> str:
    """`18 runs in 4 cohorts of 4 to 5, one teacher pass for each`; empty where each run is alone."""
    large = sorted(size for size in sizes if size > 1)
    if not large:
        return ""
    of = f"{large[0]} to {large[-1]}" if large[0] < large[-1] else f"{large[0]}"
    each = " for each" if len(large) > 1 else ""
    alone = sum(size == 1 for size in sizes)
    rest = f"; {counted(alone, 'run')} alone" if alone else ""
    return f"{sum(large)} runs in {counted(len(large), 'cohort')} of {of}, one teacher pass{each}{rest}"


def _groups(keys: Sequence[CohortKey]) -> list[str]:
    """Names of the groups of runs that may train together. Those without a teacher join the first of their stream that
    have one."""
    taught: dict[str, str] = {}
    for key in keys:
        if key.teacher:
            taught.setdefault(key.stream, key.teacher)
    return [f"{key.stream} {key.teacher or taught.get(key.stream, '')}" for key in keys]
