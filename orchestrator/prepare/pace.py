"""Pace: time and disk space of a run by structure and hardware, measured by the ledger's earlier runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cluster.spec import ClusterSpec
from orchestrator.state.outcomes import hardware
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.ledger_run import LedgerRun
from trainer.config import TrainConfig, digest, parse
from trainer.files.run_folder import environment


@dataclass(frozen=True)
class Pace:
    """Time and disk space of a run of one structure. `epoch_s`: seconds of an epoch with its share of validation and
    checkpoints, None where unknown; `once_s`: seconds of a run outside its epochs; `checkpoints`: bytes."""

    epoch_s: float | None
    once_s: float
    checkpoints: float
    packed: float = 0.0
    """Bytes of its packed data set; 0 where it has been packed already."""
    memory: float = 0.0
    """Bytes of memory of its process, of the GPU's where it has one; 0 where unknown."""

    def seconds(self, epochs: float) -> float:
        """Seconds of a run of so many epochs."""
        assert self.epoch_s is not None
        return self.once_s + epochs * self.epoch_s


def structure(config: TrainConfig) -> str:
    """12 hex digits of what determines the time of an epoch; not of seeds, weights, rates and number of epochs."""
    data = config.data.model_dump(mode="json", include={"name", "size", "options", "train_labels", "augment", "select"})
    optim: list[Any] = [config.optim.global_batch, config.optim.effective_norm_batch, config.optim.precision]
    if config.optim.iterations is not None:
        optim.append(config.optim.iterations / config.optim.epochs)
    if config.optim.ema_decay is not None:
        optim.append("ema")
    losses = {name: term.options for name, term in config.active_losses.items()}
    if losses != {"ce": {}}:
        optim.append(losses)
    paths = {name: term.options for name, term in config.active.items()}
    teacher: str | list[str] | None = config.teacher.name if config.teacher and config.active else None
    if config.teacher and config.teacher_precision != config.optim.precision and config.active:
        teacher = [config.teacher.name, config.teacher_precision]
    return digest([config.student.name, teacher, data, optim, config.eval.model_dump(mode="json"), paths])


def this_hardware(spec: ClusterSpec) -> str:
    """The name of the hardware that a spec's runs would use on this machine; "" where it lacks the GPU."""
    device, name = "cpu", ""
    if spec.gpus_per_worker:
        from orchestrator.prepare.machine import gpu_name

        device, name = "cuda", gpu_name()
        if not name:
            return ""
    return hardware(environment(device, name, spec.torch_threads, spec.least_workers))


def measured_paces(
    ledger: Ledger,
    store: Store,
    spec: ClusterSpec,
    planned: Mapping[str, TrainConfig],
    teacher_share: Callable[[TrainConfig], float] = lambda config: 0.0,
) -> tuple[dict[str, Pace], int, str]:
    """Structure -> pace, measured by finished runs with the spec's device and workers; the number of these runs, and
    their hardware.

    The hardware is this machine's where the spec starts Ray here, otherwise that of the last run. `planned` are configs
    by key, for old ledgers that hold no configs. Paces are those of runs alone: a run that has trained in a cohort paid
    for its share of the teacher's part, whose share of an epoch `teacher_share` gives.
    """
    found: dict[str, list[LedgerRun]] = {}
    shares: dict[str, float] = {}
    finished = [run for run in ledger.outcomes().values() if run.status == "finished" and _like(run, spec)]
    if spec.address == "local":
        where = this_hardware(spec)
    else:
        where = hardware(max(finished, key=lambda run: run.changed).environment) if finished else ""
    count = 0
    for run in finished:
        config = parse(run.config) if run.config else planned.get(run.key)
        if config is not None and hardware(run.environment) == where:
            name = structure(config)
            found.setdefault(name, []).append(run)
            count += 1
            if name not in shares and _cohort(run) > 1:
                shares[name] = teacher_share(config)
    walls = _walls(ledger.events())
    return {name: _pace(runs, walls, store, shares.get(name, 0.0)) for name, runs in found.items()}, count, where


def _cohort(run: LedgerRun) -> int:
    """The number of runs that trained together."""
    return int(run.environment.get("cohort", 1))


def _like(run: LedgerRun, spec: ClusterSpec) -> bool:
    """Whether a run had the spec's device and number of workers, and the time of its epochs is known."""
    device = str(run.environment.get("device", "")).partition(":")[0]
    same = (
        device == ("cuda" if spec.gpus_per_worker else "cpu") and run.environment.get("workers") == spec.least_workers
    )
    return same and run.epoch_s > 0


def _walls(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Wall-clock seconds of each run that was started once and finished."""
    starts: dict[str, list[str]] = {}
    ends: dict[str, str] = {}
    for event in events:
        if event["event"] == "started":
            starts.setdefault(event["run_id"], []).append(event["time"])
        elif event["event"] == "finished":
            ends[event["run_id"]] = event["time"]
    return {
        run_id: (datetime.fromisoformat(ends[run_id]) - datetime.fromisoformat(times[0])).total_seconds()
        for run_id, times in starts.items()
        if len(times) == 1 and run_id in ends
    }


def _pace(runs: list[LedgerRun], walls: Mapping[str, float], store: Store, teacher_share: float) -> Pace:
    """The medians over the runs of one structure, of whose epochs the teacher's part takes this share."""
    epoch_s = [run.epoch_s / (1 - teacher_share * (1 - 1 / _cohort(run))) for run in runs]
    alone = [run for run in runs if run.run_id in walls and _cohort(run) == 1]
    around = [max(0.0, walls[run.run_id] - run.epoch_s * run.epochs_done) for run in alone]
    sizes = [size for run in runs if (size := sum(f.stat().st_size for f in store.run_dir(run.run_id).glob("*.pt")))]
    return Pace(
        statistics.median(epoch_s),
        statistics.median(around) if around else 0.0,
        statistics.median(sizes or [0.0]),
        memory=max(map(_memory, runs)),
    )


def _memory(run: LedgerRun) -> float:
    """Bytes of a run's process in its last epoch, of the GPU where it has one; 0 where unknown."""
    on = "gpu_0" if str(run.environment.get("device", "")).startswith("cuda") else "process"
    return 1e6 * run.last.get(f"system/{on}_memory_usage_megabytes", 0.0)
