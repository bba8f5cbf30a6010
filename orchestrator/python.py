"""Python: what `orchestrator.run`, `report` and `judge` do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orchestrator.packages  # noqa: F401 - before our other packages: it says where they are
from ablations.study.as_yaml import as_yaml
from ablations.study.schema import Study
from orchestrator.results import Results
from orchestrator.store.folder import Store
from orchestrator.verbs.options import files_read, opened, store_of


def run_study(
    study: Study | str | Path,
    store: str | Path | None,
    cluster: str | None,
    data_root: str | Path | None,
    workers: int | str | None,
    *,
    retry_failed: bool,
) -> Results:
    """`orchestrator.run`."""
    from orchestrator.verbs.run import launch, launch_read

    folder, roots = _path(store), [] if data_root is None else [str(data_root)]
    number = None if workers is None else str(workers)
    if isinstance(study, Study):
        where = store_of(folder, cluster)
        launch_read(study, as_yaml(study), where, cluster, roots, number, read=[], retry_failed=retry_failed)
    else:
        launch(str(study), cluster, folder, roots, number, retry_failed=retry_failed)
    return report_study(study, store, cluster)


def report_study(study: Study | str | Path, store: str | Path | None, cluster: str | None) -> Results:
    """`orchestrator.report`."""
    if isinstance(study, Study):
        return _results(study, store_of(_path(store), cluster), [])
    with opened(str(study), _path(store), cluster) as (loaded, where):
        return _results(loaded, where, files_read(str(study), cluster))


def _results(study: Study, where: Store, inputs: list[Path]) -> Results:
    from orchestrator.report.files import check_folder, run_rows, write
    from orchestrator.report.page.data import report_of
    from orchestrator.state.study_state import StudyState
    from orchestrator.store.ledger import Ledger

    found = report_of(StudyState(study, Ledger(where.ledger)), where)

    def save(folder: Path) -> Path:
        check_folder("folder", folder, where, inputs)
        return write(found, folder)[-1]

    return Results(found.table, run_rows(found), save)


def judge_scores(
    name: str,
    scores: Any,
    arm: str | None,
    seed: str | None,
    metric: str | None,
    reference: str | None,
    contrasts: tuple[str, ...],
    minimise: bool | None,
    margin: float | None,
    unpaired: bool,
) -> Results:
    """`orchestrator.judge`."""
    from orchestrator.judging.files import check_folder, write
    from orchestrator.judging.frame import frame_of, read_frame
    from orchestrator.judging.judged import judged
    from orchestrator.judging.scores import Choices, check_margin

    check_margin(margin)
    file = Path(scores) if isinstance(scores, str | Path) else None
    frame = read_frame(file) if file else frame_of(scores)
    choices = Choices(arm, seed, metric, reference, contrasts, minimise, margin, unpaired)
    found = judged(name, frame, choices)

    def save(folder: Path) -> Path:
        check_folder("folder", folder, file)
        return write(found, folder, frame.source)

    measured = found.measured.scores.items()
    rows = [{"arm": arm, "seed": seed, "score": score} for arm, own in measured for seed, score in own.items()]
    return Results(found.table, rows, save)


def _path(store: str | Path | None) -> Path | None:
    return None if store is None else Path(store)
