"""status: print the progress of a study, also while a driver runs it."""

from __future__ import annotations

from orchestrator.verbs.options import ClusterOption, StoreOption, StudyName, store_of

NAMED = 4
"""Of runs with the same failure, at most so many are named."""


def status(study: StudyName, store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """Print the progress of a study, also while a driver runs it."""
    from ablations.study.schema import load
    from orchestrator.state.progress import best_in_words, epochs_of, in_words, left_s, stopped_in_words, study_status
    from orchestrator.state.study_state import StudyState
    from orchestrator.store.ledger import Ledger

    loaded, where = load(study), store_of(store, cluster)
    now = study_status(StudyState(loaded, Ledger(where.ledger)), where.driver())
    runs, counts = now.runs, now.counts
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(f"{loaded.name}: {len(runs)} runs: {states}; driver: {now.driver or 'none'}")
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
