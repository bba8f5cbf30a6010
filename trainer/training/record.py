"""The checkpoints of a run: written after an epoch or in the midst of one, and read to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer import parallel
from trainer.config import UserError
from trainer.files import checkpoint, generations, run_folder
from trainer.files.atomic import replacing
from trainer.training.learner import Learner

RAW = "raw_student"
"""Where a checkpoint holds the weights of a student beside its moving average."""


@dataclass(frozen=True)
class EpochPart:
    """What is done of an epoch that has not ended."""

    steps: int = 0
    seconds: float = 0.0
    sums: Sequence[float] = ()
    """The losses of its steps, as `Learner.checked_sums` adds them up."""


def to_resume_from(
    identity: str,
    fingerprints: dict[str, str],
    learner: Learner,
    history: list[dict[str, float]],
    best: dict[str, float],
    epoch_part: EpochPart | None = None,
) -> dict[str, Any]:
    """What a checkpoint holds, as a copy that training does not change. `epoch_part`: of the epoch after the history.

    The fingerprints of the data, by split, are there because the mIoU was measured on it. Where a student has a moving
    average, `model` holds that, and `raw_student` the weights that are trained.
    """
    model = deepcopy(learner.distilled.state_dict())
    trained = {}
    if learner.average is not None:
        trained = {RAW: {name: model[f"student.{name}"] for name in learner.deployed.state_dict()}}
        model |= {f"student.{name}": tensor.clone() for name, tensor in learner.deployed.state_dict().items()}
    return {
        "run_id": identity,
        "final_weights": "",
        "data": fingerprints,
        "model": model,
        **trained,
        "optimiser": deepcopy(learner.optimiser.state_dict()),
        "history": list(history),
        "best": dict(best),
        **({} if epoch_part is None else {"epoch_part": asdict(epoch_part)}),
    }


def save_checkpoints(out: Path, state: dict[str, Any], best_student: dict[str, Tensor] | None, finished: bool) -> None:
    """Write the student of the best epoch, where that is new, and the checkpoint to resume from.

    Where the run has finished, the latter also holds the digest of its weights, by which `finished_run` knows them.
    """
    if best_student is not None:
        checkpoint.save(out / run_folder.BEST, {"model": best_student, "data": state["data"], **state["best"]})
    if finished:
        state["final_weights"] = checkpoint.weights_digest(state["model"])
    generations.save(out, state)


def resume(
    out: Path, identity: str, learner: Learner, is_rank_zero: bool
) -> tuple[list[dict[str, float]], dict[str, float], EpochPart]:
    """Load the checkpoint in `out`, if any, and return the metrics of the epochs done, the best epoch, and what is done
    of the next.

    Raises UserError when the checkpoint belongs to another run.
    """
    device = learner.device if parallel.world() == 1 else torch.device("cpu")  # what workers send each other
    state = _furthest(out, generations.restore(out, device, is_rank_zero), is_rank_zero)
    if state is None:
        if is_rank_zero:
            run_folder.write_epochs(out, [])
        return [], {}, EpochPart()
    if state.get("run_id") != identity:
        raise UserError(
            f"{out / run_folder.LAST} was computed from other data, weights or numerics "
            f"(run {state.get('run_id')}, now {identity}); choose another folder"
        )
    learner.distilled.load_state_dict(state["model"])
    if learner.average is not None:
        learner.average.model.load_state_dict(learner.distilled.student.state_dict())
        learner.distilled.student.load_state_dict(state[RAW])
    learner.optimiser.load_state_dict(state["optimiser"])
    history = state["history"]
    assert [epoch["epoch"] for epoch in history] == list(range(1, len(history) + 1)), "epochs must follow each other"
    if is_rank_zero:
        run_folder.write_epochs(out, history)
    epoch_part = EpochPart(**state.get("epoch_part", {}))
    learner.go_on_from(epoch_part.sums, epoch_part.steps)
    return history, state["best"], epoch_part


def _furthest(out: Path, state: dict[str, Any] | None, is_rank_zero: bool) -> dict[str, Any] | None:
    """The state of the worker whose checkpoint is furthest: their folders may be copies on machines of their own, which
    differ where the last upload of one has failed. Worker 0 gets the best student that belongs to it."""
    if parallel.world() == 1:
        return state
    at = (-1, 0, "")
    if state is not None:
        digest = checkpoint.weights_digest(state["model"])
        at = (len(state["history"]), checkpoint.steps_within_epoch(state), digest)
    said = parallel.all_said(at)
    if len(set(said)) == 1:
        return state
    best = out / run_folder.BEST
    own = (state, best.read_bytes() if best.is_file() else None)
    state, student = parallel.from_rank(own, said.index(max(said)))
    if is_rank_zero and student is not None:
        with replacing(best) as temporary:
            temporary.write_bytes(student)
    return state
