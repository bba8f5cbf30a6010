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
"""PED-ANOVA (Watanabe et al., IJCAI 2023) asks what the best trials have in common; fANOVA (Hutter et al., ICML 2014)
what moves the score anywhere. They may disagree, so whoever shows one names it."""

FEWEST = 10
"""Finished trials below which nothing is said: PED-ANOVA calls a tenth of them the best, and that is to be one."""


def importances(study: Study, history: Iterable[Proposal], evaluator: str = "ped_anova") -> dict[str, float]:
    """Each dimension's share, in sum 1, the largest first, by one of `EVALUATORS`; empty where there are too few
    finished trials to say.

    fANOVA leaves out the dimensions that only some trials have.
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
