"""status: print the progress of one study or of all, also while a driver runs one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.verbs.options import ClusterOption, StoreOption, opened, store_of
from trainer.config import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ablations.study.schema import Study
    from orchestrator.state.progress import StudyStatus
    from orchestrator.store.folder import Store

NAMED = 4
"""Of runs with the same failure, at most so many are named."""


def status(
    study: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", help="a study's name, a YAML file, or a bundle [all of the store]"),
    ] = None,
    store: StoreOption = None,
    cluster: ClusterOption = None,
) -> None:
    """Print the progress of a study, also while a driver runs it; without a study, that of all in the store."""
    from orchestrator.state.stored_studies import stored_studies
    from orchestrator.store.ledger import Ledger

    if study is not None:
        with opened(study, store, cluster) as found:
            return _status(*found)
    where = store_of(store, cluster)
    stored = stored_studies(Ledger(where.ledger))
    if not stored:
        print(f"{where.name} holds no study yet; `transkd list` names those that can be run")
    drivers = where.leases.drivers()
    for name in stored:
        print(f"{name}: {in_short(name, where, drivers)}")
    return None


def in_short(name: str, store: Store, drivers: Mapping[str, str]) -> str:
    """The state of a study of the store in one line; `drivers` are those of the store now (`Leases.drivers`)."""
    from orchestrator.state.progress import study_status
    from orchestrator.state.stored_studies import load_study
    from orchestrator.state.study_state import StudyState
    from orchestrator.store.ledger import Ledger
    from trainer.config import UserError

    ledger = Ledger(store.ledger)
    try:
        return one_line(study_status(StudyState(load_study(name, ledger), ledger), drivers))
    except UserError as error:  # a study of an earlier version
        return f"cannot be read: {error}"


def one_line(now: StudyStatus) -> str:
    """`7 runs: 5 finished, 2 missing; driver: none`."""
    states = ", ".join(f"{count} {state}" for state, count in now.counts.items())
    return f"{counted(len(now.runs), 'run')}: {states}; driver: {now.driver or 'none'}"


def _status(study: Study, store: Store) -> None:
    from orchestrator.state.progress import best_in_words, epochs_of, in_words, left_s, stopped_in_words, study_status
    from orchestrator.state.study_state import StudyState
    from orchestrator.store.ledger import Ledger

    now = study_status(StudyState(study, Ledger(store.ledger)), store.leases.drivers())
    runs, counts = now.runs, now.counts
    print(f"{study.name}: {one_line(now)}")
    done, total = epochs_of(runs)
    if done:
        left = in_words(left_s(runs, counts.get("running", 0))) if now.driver else ""
        said = (f"{done}/{total} epochs", best_in_words(runs), stopped_in_words(runs), left)
        print(f"  {'  '.join(filter(None, said))}")
    for run in runs:
        if run.state in ("running", "interrupted"):
            score = "" if run.score is None else f"  {run.metric} {run.score:.2f}"
            print(f"  {run.label}: {run.state} at epoch {run.epoch}/{run.epochs}{score}  {run.note}".rstrip())
    failed: dict[str, list[str]] = {}
    for run in runs:
        if run.state == "failed":
            failed.setdefault(run.note, []).append(run.label)
    for note, labels in failed.items():
        more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
        print(f"  {', '.join(labels[:NAMED])}{more}: failed: {note}")
