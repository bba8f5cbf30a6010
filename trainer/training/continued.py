"""continue_run(): a run with more epochs takes over the epochs of a shorter run of the same config."""

from __future__ import annotations

import shutil
from pathlib import Path

from trainer.config import TrainConfig, UserError, counted, parse, read_yaml
from trainer.files import checkpoint, generations, run_folder
from trainer.files.atomic import replacing
from trainer.place import Place
from trainer.training.sources import run_id


def continue_run(source: Path, config: TrainConfig, place: Place) -> None:
    """Write the state of the run in `source` to `place.out_dir`, so that `fit` resumes from it; `source` stays.

    Nothing is done where `place.out_dir` already has a checkpoint. Raises UserError unless the epochs of `source` are
    those that `config` would compute first: all but `optim.epochs` is equal, and the schedule does not depend on it.
    """
    if (place.out_dir / run_folder.LAST).exists():
        return
    stored = parse(read_yaml(source / "config.yaml"), str(source / "config.yaml"))
    if not run_folder.is_longer(config, stored):
        raise UserError(f"--continue {source}: {_reason(config, stored)}")
    run_folder.check_config(place.out_dir, config)
    state = checkpoint.load(source / run_folder.LAST)
    before = run_id(stored, place)
    if state.get("run_id") != before:
        raise UserError(
            f"--continue {source}: it was computed from other data, weights or numerics (run {state.get('run_id')}, "
            f"now {before}); train without --continue"
        )
    run_folder.open_folder(place.out_dir, config, is_rank_zero=True)
    if state["best"]:
        with replacing(place.out_dir / run_folder.BEST) as temporary:
            shutil.copyfile(source / run_folder.BEST, temporary)
    steps = checkpoint.steps_within_epoch(state)
    done = counted(len(state["history"]), "epoch") + (f" and {counted(steps, 'step')}" if steps else "")
    run_folder.append_note(place.out_dir, f"{done} taken over from run {before}")
    generations.save(place.out_dir, {**state, "run_id": run_id(config, place), "final_weights": ""})


def _reason(config: TrainConfig, stored: TrainConfig) -> str:
    """Why `config` is no longer run of `stored`, and what to do."""
    told = run_folder.difference(stored, config) or "the configs are equal"
    if config.optim.iterations is not None or stored.optim.iterations is not None:
        return (
            f"with optim.iterations an epoch is a part of the run, so its epochs cannot be taken over ({told}); train "
            "without --continue, or set student.init to its best.pt to start from its backbone"
        )
    if config.optim.schedule != "reference":
        return (
            f"with schedule {config.optim.schedule} all learning rates depend on optim.epochs, so its epochs cannot be "
            "taken over; train without --continue, or set student.init to its best.pt to start from its backbone"
        )
    return f"only optim.epochs may differ, and must be higher here ({told}); train without --continue"
