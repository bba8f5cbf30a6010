"""status: where a study stands, beside the driver that runs it."""

from __future__ import annotations

from orchestrator.verbs.options import ClusterOption, StoreOption, StudyName, store_of

NAMED = 4
"""Runs that failed alike and are called by name."""


def status(study: StudyName, store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """Say where a study stands. Works beside the driver that runs it."""
    from ablations.study.schema import load
    from orchestrator.state.progress import best_in_words, epochs_of, in_words, left_s, standing, stopped_in_words
    from orchestrator.state.study_state import StudyState
    from orchestrator.store.ledger import Ledger

    loaded, where = load(study), store_of(store, cluster)
    now = standing(StudyState(loaded, Ledger(where.ledger)), where.driver())
    parts, counts = now.parts, now.counts
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(f"{loaded.name}: {len(parts)} runs: {states}; driver: {now.driver or 'none'}")
    done, total = epochs_of(parts)
    if done:
        left = in_words(left_s(parts, counts.get("running", 0))) if now.driver else ""
        said = (f"{done}/{total} epochs", best_in_words(parts), stopped_in_words(parts), left)
        print(f"  {'  '.join(filter(None, said))}")
    for part in parts:
        if part.state in ("running", "interrupted"):
            score = "" if part.score is None else f"  mIoU {part.score:.2f}"
            print(f"  {part.label}: {part.state} at epoch {part.epoch}/{part.epochs}{score}  {part.note}".rstrip())
    failed: dict[str, list[str]] = {}
    for part in parts:
        if part.state == "failed":
            failed.setdefault(part.note, []).append(part.label)
    for note, labels in failed.items():
        more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
        print(f"  {', '.join(labels[:NAMED])}{more}: failed: {note}")
