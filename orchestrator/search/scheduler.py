"""EarlyStopping: Tune's scheduler, with the rules of `ablations/study/early_stopping.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler


class EarlyStopping(FIFOScheduler):
    """Ends a trial after an epoch where `goes_on(run_id, result)` is false."""

    def __init__(self, goes_on: Callable[[str, Mapping[str, Any]], bool]) -> None:
        super().__init__()
        self.goes_on = goes_on

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Tune after every epoch."""
        goes_on = self.goes_on(trial.config["job"]["run_id"], result)
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP
