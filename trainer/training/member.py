"""Member: one run of a cohort, with its student, optimiser, losses, record and checkpoints of its own."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer import parallel
from trainer.config import ModelConfig, TrainConfig, UserError
from trainer.files import generations, run_folder
from trainer.measure.device import device_name
from trainer.measure.footprint import measure
from trainer.place import Place
from trainer.training.build import build_distilled, check
from trainer.training.evaluation.evaluate import evaluate_test, validate
from trainer.training.evaluation.panel import save_panel
from trainer.training.learner import Learner
from trainer.training.networks import weights_used
from trainer.training.numerics import described
from trainer.training.record import EpochPart, resume, save_checkpoints, to_resume_from
from trainer.training.recorder import Recorder
from trainer.training.schedule import learning_rate, steps_of
from trainer.training.shared import Shared
from trainer.training.step import Part, accumulate

Report = Callable[[dict[str, float], Path | None], bool | None]
"""Called by every worker with the metrics and the checkpoint of an epoch; True ends the run after this epoch."""


@dataclass(frozen=True)
class Run:
    """A run that is asked for."""

    config: TrainConfig
    place: Place
    report: Report
    ended: Callable[[Exception | None], None] | None = None
    """Called once when the run has ended: with its error, or None where it has finished or was ended early. Without it,
    the error of this run is raised, and ends the runs beside it."""
    run_id: str = ""
    """The id it must have, if that is known: data or weights may change between a plan and its runs."""
    leaves: Callable[[], bool] = lambda: False
    """Whether its machine is about to be taken away: then the run ends after the step, with a checkpoint of it."""


class PreemptedError(RuntimeError):
    """The machine of a run is about to be taken away; its last step is saved."""


class Member:
    """A run while it trains."""

    def __init__(self, run: Run, shared: Shared) -> None:
        self.run, self.shared = run, shared
        self.config, self.place = run.config, run.place
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.losses: dict[str, float] = {}
        self.result: dict[str, Any] | None = None
        self.epoch_part = EpochPart()
        """What an earlier start has done of this epoch."""
        self.over = False
        """Whether it is finished, was ended early, or has failed."""
        self.own_s = 0.0
        """Seconds of this epoch's training that were its own: student, losses and optimiser."""
        self.learner: Learner | None = None
        self.recorder = Recorder()
        self._best_student: dict[str, Tensor] | None = None
        """The student of the best epoch, where it is not written yet."""

    @functools.cached_property
    def network(self) -> ModelConfig:
        """The student's network, whatever its weights: equal ones draw equal masks."""
        return self.config.student.model_copy(update={"init": "scratch", "partial": False})

    @property
    def out(self) -> Path:
        """The run's folder."""
        return self.place.out_dir

    @property
    def at(self) -> tuple[int, int]:
        """The epochs that are done, and the steps of the next that an earlier start has done."""
        return len(self.history), self.epoch_part.steps

    @property
    def trained(self) -> bool:
        """Whether all epochs are done."""
        return len(self.history) >= self.config.optim.epochs

    def prepare(self) -> None:
        """Read what a run that has finished before has left, else make the student with its paths. Workers do this each
        for itself. Raises UserError for files, a config or a place that cannot be used."""
        self.identity = self.shared.run_id(self.config, self.place)
        if self.run.run_id and self.run.run_id != self.identity:
            raise UserError(
                f"the run was planned as {self.run.run_id} but is {self.identity} now: the data or weights changed "
                "while the run waited; run the same command again"
            )
        result = run_folder.read_result(self.out)
        if result is not None and result["run_id"] == self.identity and run_folder.has_checkpoint(self.out):
            self.result = result
            return
        self.share, self.micro = self.config.optim.shares(parallel.world(), self.place.micro_batch)
        self.data = self.shared.open(self.config)
        model = self.shared.teacher_model(self.config, self.place)
        self.distilled = build_distilled(self.config, model, self.data).to(self.shared.device)
        self.weights = weights_used(self.config, self.place, self.distilled.student, model)

    def start(self) -> None:
        """Open the folder and resume. Workers do this together. Raises UserError, in all of them alike."""
        is_rank_zero = parallel.rank() == 0
        if self.result is not None:
            self._report_again(self.result)
            return
        self.shared.verify(self.config, self.place)
        self.learner = Learner(self.distilled, self.config.optim, self.config.terms, self.shared.compiler)
        run_folder.open_folder(self.out, self.config, is_rank_zero)  # after every check that may raise UserError
        self.history, self.best, self.epoch_part = resume(self.out, self.identity, self.learner, is_rank_zero)
        if is_rank_zero and not self.trained:
            run_folder.clear_result(self.out)

    def _report_again(self, result: dict[str, Any]) -> None:
        if parallel.rank() == 0:
            generations.delete_previous(self.out)
        self.run.report(result["last"], self.out / run_folder.LAST)
        self.over = True

    def begin_epoch(self) -> None:
        """Before the steps of an epoch."""
        self.own_s = 0.0
        self.distilled.train()

    def take(self, part: Part) -> None:
        """Add the gradients of a micro-batch."""
        assert self.learner is not None
        accumulate(self.learner, part, self.config.optim.global_batch)

    def update(self, step: int) -> None:
        """One optimiser step."""
        assert self.learner is not None
        self.learner.update(self._rate(step), step)

    def _rate(self, step: int) -> float:
        return learning_rate(self.config.optim, step, self.shared.steps_per_pass)

    def drain(self) -> None:
        """Average the losses of the epoch. Raises NumericalError when one was not finite."""
        assert self.learner is not None
        self.losses = self.learner.drain()

    def end_epoch(self, seconds: float, load: dict[str, float]) -> None:
        """Validate, and begin to save; the epoch is reported when its checkpoint is on disk. `seconds` of training were
        this run's; `load` is that of the machine. Raises PreemptedError where that is about to be taken away."""
        self.recorder.finish()
        if self.over:  # the epoch before was to be the last
            return
        assert self.learner is not None
        started, seconds, self.epoch_part = time.monotonic(), seconds + self.epoch_part.seconds, EpochPart()
        epoch = len(self.history) + 1
        steps = steps_of(self.config.optim, epoch - 1, self.shared.steps_per_pass)
        metrics = {"epoch": float(epoch), "step": float(steps.stop), **self.losses, "lr": self._rate(steps.stop - 1)}
        metrics["images_per_s"] = len(steps) * self.config.optim.global_batch / seconds
        if epoch % self.config.eval.every == 0 or epoch == self.config.optim.epochs:
            metrics |= validate(self.learner.deployed, self.data, self.config, self.learner.autocast)
        if epoch == self.config.optim.epochs:
            metrics |= evaluate_test(self.learner.deployed, self.data, self.config, self.learner.autocast)
        metrics |= load
        metrics["seconds"] = seconds + time.monotonic() - started
        leaves = parallel.first_said("leaves" if self.run.leaves() else "")
        self.recorder.begin(self._to_save(metrics, bool(leaves)), functools.partial(self._record, metrics))
        if leaves or parallel.world() > 1:  # all workers report at the same step
            self.recorder.finish()
        if leaves and not (self.trained or self.over):
            raise PreemptedError(f"the machine was taken away with notice; epoch {epoch} was saved")

    def save_part(self, done: int, seconds: float) -> None:
        """Save an epoch of which `done` steps are done, in so many seconds of this start."""
        self.recorder.finish()
        if self.over:  # the epoch before was to be the last
            return
        assert self.learner is not None
        self.epoch_part = EpochPart(done, self.epoch_part.seconds + seconds, self.learner.checked_sums())
        if parallel.rank() == 0:
            save_checkpoints(self.out, self._state(self.epoch_part), self._best_student, finished=False)
        parallel.barrier()

    def leave(self) -> None:
        """Raise PreemptedError, after `save_part`."""
        said = f"step {self.epoch_part.steps} of epoch {len(self.history) + 1} was saved"
        raise PreemptedError(f"the machine was taken away with notice; {said}")

    def _state(self, part: EpochPart | None = None) -> dict[str, Any]:
        assert self.learner is not None
        return to_resume_from(self.identity, self.data.fingerprints, self.learner, self.history, self.best, part)

    def _to_save(self, metrics: dict[str, float], leaves: bool) -> Callable[[], None] | None:
        """Add an epoch to the history; returns what writes its checkpoints, None where none is due."""
        assert self.learner is not None
        self.history.append(metrics)
        is_rank_zero = parallel.rank() == 0
        if "val/miou" in metrics and metrics["val/miou"] > self.best.get("val/miou", -1.0):
            self.best = {"epoch": metrics["epoch"], "val/miou": metrics["val/miou"]}
            self._best_student = deepcopy(self.learner.deployed.state_dict()) if is_rank_zero else None
        if not is_rank_zero or not (leaves or self.trained or len(self.history) % self.place.checkpoint_every == 0):
            return None
        student, self._best_student = self._best_student, None
        return functools.partial(save_checkpoints, self.out, self._state(), student, self.trained)

    def _record(self, metrics: dict[str, float]) -> None:
        """Add an epoch to the run's record and report it, which may end the run."""
        if parallel.rank() == 0:
            run_folder.append_epoch(self.out, metrics)
        stop = self.run.report(metrics, self.out / run_folder.LAST)
        if parallel.first_said("stop" if stop else "") and not self.trained:
            self.over = True

    def finish(self, cohort: int) -> None:
        """Write the result of a run whose epochs are done. `cohort` is the number of runs that trained side by side."""
        self.recorder.finish()
        assert self.learner is not None
        device, student = self.shared.device, self.learner.deployed
        cost = check(self.config, self.place.cache_dir)
        if parallel.rank() == 0:  # the other workers wait and do not disturb the measurement
            cost |= measure(student, self.config.data.size, device)
        machine = (str(device), device_name(device), self.place.threads, parallel.world(), cohort)
        self.result = {
            "key": self.config.key,
            "run_id": self.identity,
            "status": "finished",
            "last": self.history[-1],
            "best": self.best,
            "data": self.data.fingerprints,
            "weights": self.weights,
            "complexity": cost,
            "environment": run_folder.environment(*machine) | described(device, self.shared.compiler),
            "seconds": sum(epoch["seconds"] for epoch in self.history),
            "images_per_step": self.share * parallel.world(),
            "micro_batch": self.micro,
        }
        if parallel.rank() == 0:
            save_panel(self.out / "panel.png", student, self.data, self.config)
            run_folder.write_result(self.out, self.result)
            generations.delete_previous(self.out)
        parallel.barrier()
        self.over = True

    def free(self) -> None:
        """Let go of all tensors."""
        self.learner = None
        self.__dict__.pop("distilled", None)
