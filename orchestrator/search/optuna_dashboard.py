"""A study's searches in `optuna.db` of the store's databases, for optuna-dashboard.

It is written from the ledger and never read back; losing it loses no result.
"""

from __future__ import annotations

import warnings

import optuna
from optuna.storages import RDBStorage
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial

from ablations.study.early_stopping import Curve
from ablations.study.plan import search_identity
from ablations.study.schema import Study
from ablations.study.variant_search import searches
from orchestrator.search.optuna_trials import directions, optuna_trial
from orchestrator.state.proposals import curve, proposals
from orchestrator.store.folder import Store, sqlite_uri
from orchestrator.store.ledger import Ledger
from trainer.config import message_of
from trainer.config.input_files import check_own_file


def database(store: Store) -> str:
    """The storage's URL, as `optuna-dashboard` takes it."""
    return sqlite_uri(store.databases / "optuna.db")


def mirror(study: Study, store: Store) -> str:
    """Bring a study's searches up to date in the store's Optuna database. Raises nothing; returns an error message."""
    wanted = {arm: search for arm, search in searches(study).items() if search.search is not None}
    if not wanted:
        return ""
    try:
        storage = _open(store)
        try:
            for arm, search in wanted.items():
                _mirror(search, arm, Ledger(store.ledger), storage)
        finally:
            storage.engine.dispose()
    except Exception as error:
        return f"{store.databases / 'optuna.db'} is not up to date: {message_of(error)[:200]}"
    return ""


def _open(store: Store) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = store.databases / "optuna.db"
    file.parent.mkdir(parents=True, exist_ok=True)
    check_own_file(file)
    file.touch()  # by the user's umask; SQLite would not let a group write it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RDBStorage(database(store), engine_kwargs={"connect_args": {"timeout": 10}})


def _mirror(study: Study, arm: str, ledger: Ledger, storage: RDBStorage) -> None:
    """Write one search; Optuna's trial n is proposal n. New trials are appended; where an existing trial has changed
    (it was waiting, or was retried), the study is written again."""
    assert study.search is not None
    name = " ".join(part for part in (study.name, arm, search_identity(study)) if part)
    trials = _trials(study, ledger)
    there = {summary.study_name for summary in optuna.get_all_study_summaries(storage, include_best_trial=False)}
    if name in there and not _continues(optuna.load_study(study_name=name, storage=storage), trials):
        optuna.delete_study(study_name=name, storage=storage)
    kept = optuna.create_study(
        study_name=name, storage=storage, directions=directions(study.search), load_if_exists=True
    )
    names = [study.search.metric, *([study.search.against] if study.search.against else [])]
    if kept.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            kept.set_metric_names(names)
    kept.add_trials(trials[len(kept.get_trials(deepcopy=False)) :])


def _trials(study: Study, ledger: Ledger) -> list[FrozenTrial]:
    assert study.search is not None
    runs = ledger.outcomes()
    return [
        optuna_trial(
            study.search,
            trial,
            _until(curve(runs.get(run_id), study.search.metric), trial.epochs),
            facts={"run": run_id, "state": trial.state, "reason": trial.reason, **trial.costs},
        )
        for run_id, trial in proposals(study, ledger)
    ]


def _until(shown: Curve, epoch: int) -> Curve:
    """The part of a curve up to an epoch: another study may have trained the run further."""
    return {at: value for at, value in shown.items() if at <= epoch}


def _continues(kept: OptunaStudy, trials: list[FrozenTrial]) -> bool:
    """Whether the stored trials are the first of `trials`."""

    def facts(trial: FrozenTrial) -> tuple[object, ...]:
        return trial.state, trial.values, trial.params, trial.intermediate_values, trial.user_attrs

    old = kept.get_trials(deepcopy=False)
    return len(old) <= len(trials) and all(
        facts(ours) == facts(theirs) for ours, theirs in zip(trials, old, strict=False)
    )
