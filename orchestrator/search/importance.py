"""Importance: how much of the score's variation over a search's finished trials each dimension explains."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import optuna
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

from ablations.study.schema import Study
from orchestrator.search.optuna_trials import in_memory, optuna_trial
from orchestrator.state.proposals import Proposal

EVALUATORS = {
    "ped_anova": lambda: PedAnovaImportanceEvaluator(),
    "fanova": lambda: FanovaImportanceEvaluator(seed=0),
}
"""PED-ANOVA (Watanabe et al., IJCAI 2023) measures importance for being among the best trials; fANOVA (Hutter et al.,
ICML 2014) over the whole space. They may disagree: always show the evaluator's name."""

FEWEST = 10
"""Minimum of finished trials: PED-ANOVA takes the best tenth of them, which must be at least one."""


def importances(study: Study, history: Iterable[Proposal], evaluator: str = "ped_anova") -> dict[str, float]:
    """Dimension -> importance by one of `EVALUATORS`, in sum 1, the largest first; empty with too few finished trials.

    fANOVA leaves out dimensions that only some trials have.
    """
    search = study.search
    assert search is not None
    one = search.model_copy(update={"against": None})
    ended = [trial for _, trial in history if trial.state != "running"]
    if sum(trial.state == "finished" for trial in ended) < FEWEST:
        return {}
    optuna_study = in_memory(one)
    optuna_study.add_trials([optuna_trial(one, trial) for trial in ended])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(optuna.importance.get_param_importances(optuna_study, evaluator=EVALUATORS[evaluator]()))
    except (ValueError, RuntimeError):
        return {}
