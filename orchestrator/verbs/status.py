"""status: where a study stands, beside the driver that runs it."""

from __future__ import annotations

from orchestrator.verbs.options import ClusterOption, StoreOption, StudyName, store_of


def status(study: StudyName, store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """Say where a study stands. Works beside the driver that runs it."""
    from ablations.study import load
    from orchestrator.standing import standing

    loaded, where = load(study), store_of(store, cluster)
    now = standing(loaded, where)
    counts = ", ".join(f"{count} {state}" for state, count in now.counts.items())
    print(f"{loaded.name}: {len(now.parts)} runs: {counts}; driver: {now.driver or 'none'}")
    for part in now.parts:
        if part.state in ("running", "interrupted"):
            miou = "" if part.miou is None else f"  mIoU {part.miou:.2f}"
            print(f"  {part.label}: {part.state} at epoch {part.epoch}/{part.epochs}{miou}")
