"""EarlyStopping: Tune's scheduler, with the rules of `ablations/study/early_stopping.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray.tune.schedulers import TrialScheduler

from orchestrator.running.tuner import InOrder
from trainer.files import run_folder


class EarlyStopping(InOrder):
    """Ends a run after an epoch where `goes_on(run_id, result)` is false: its trial, or the run alone where others of
    its cohort train on."""

    def __init__(self, goes_on: Callable[[str, Mapping[str, Any]], bool]) -> None:
        super().__init__()
        self.goes_on = goes_on

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for its own restore, which is not used."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Tune after every epoch of a run, and once more at the end of a trial."""
        run_id = result.get("run_id")  # none where a trial has ended without an epoch
        if run_id is None or self.goes_on(run_id, result):
            return TrialScheduler.CONTINUE
        beside = [job for job in trial.config["jobs"] if job["run_id"] != run_id]
        if not beside:
            return TrialScheduler.STOP
        for job in trial.config["jobs"]:
            if job["run_id"] == run_id:
                run_folder.ask_to_end(Path(job["place"]["out_dir"]))
        return TrialScheduler.CONTINUE
