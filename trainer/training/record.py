"""The checkpoints of a run: written after an epoch, and read to go on from."""

from __future__ import annotations

from pathlib import Path

from trainer.config import UserError
from trainer.files import checkpoint, generations, run_folder
from trainer.training.learner import Learner


def save_checkpoints(
    out: Path,
    identity: str,
    fingerprints: dict[str, str],
    learner: Learner,
    history: list[dict[str, float]],
    best: dict[str, float],
    improved: bool,
    finished: bool,
) -> None:
    """Write the checkpoint to resume from, and the student alone when it is the best so far.

    Both hold the fingerprints of the data, by split, because their mIoU was measured on it. Where the run has
    finished, the checkpoint also holds the digest of its weights, by which `finished_run` knows them.
    """
    if improved:
        student = learner.distilled.student.state_dict()
        checkpoint.save(out / run_folder.BEST, {"model": student, "data": fingerprints, **best})
    model = learner.distilled.state_dict()
    state = {
        "run_id": identity,
        "final_weights": checkpoint.weights_digest(model) if finished else "",
        "data": fingerprints,
        "model": model,
        "optimiser": learner.optimiser.state_dict(),
        "history": history,
        "best": best,
    }
    generations.save(out, state)


def resume(
    out: Path, identity: str, learner: Learner, is_rank_zero: bool
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Load the checkpoint in `out`, if any, and return the metrics of the epochs done and the best epoch.

    Raises UserError when the checkpoint belongs to another run.
    """
    state = generations.restore(out, learner.device, is_rank_zero)
    if state is None:
        if is_rank_zero:
            run_folder.write_epochs(out, [])
        return [], {}
    if state.get("run_id") != identity:
        raise UserError(
            f"{out / run_folder.LAST} was computed from other data, weights or numerics "
            f"(run {state.get('run_id')}, now {identity}); choose another folder"
        )
    learner.distilled.load_state_dict(state["model"])
    learner.optimiser.load_state_dict(state["optimiser"])
    history = state["history"]
    assert [epoch["epoch"] for epoch in history] == list(range(1, len(history) + 1)), "epochs must follow each other"
    if is_rank_zero:
        run_folder.write_epochs(out, history)
    return history, state["best"]
