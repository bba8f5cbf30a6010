"""When are runs run, and what came out? Ray Tune, Ray Train, Optuna, MLflow, the ledger and reports.

`run`, `report` and `judge` are its interface for Python (docs/python.md). They import what they need when called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orchestrator.report  # noqa: F401 - binds `report` to the folder now: later, it would replace the function

if TYPE_CHECKING:
    from pathlib import Path

    from pandas import DataFrame

    from ablations.study.schema import Study
    from orchestrator.results import Results

__all__ = ["judge", "report", "run"]


def run(
    study: Study | str | Path,
    *,
    store: str | Path | None = None,
    cluster: str | None = None,
    data_root: str | Path | None = None,
    workers: int | str | None = None,
    retry_failed: bool = False,
) -> Results:
    """Train the missing runs of a study, as `transkd run` does, and return its results.

    `study` is a study, the name of one, or a YAML file; `store`, `cluster`, `data_root` and the others are the options
    of `transkd run` (`workers=2`, or `"1-4"`). Runs that do not finish are rows of the table; UserError is raised for
    what cannot run.
    """
    from orchestrator.python import run_study

    return run_study(study, store, cluster, data_root, workers, retry_failed=retry_failed)


def report(study: Study | str | Path, *, store: str | Path | None = None, cluster: str | None = None) -> Results:
    """The results of a study so far, from the ledger of its store, as `transkd report` prints them; nothing is written.

    `study` may also be what `transkd bundle` wrote. Raises UserError where there is no such study.
    """
    from orchestrator.python import report_study

    return report_study(study, store, cluster)


def judge(
    scores: DataFrame | Mapping[str, Sequence[Any]] | str | Path,
    *,
    arm: str | None = None,
    seed: str | None = None,
    metric: str | None = None,
    reference: str | None = None,
    contrasts: Sequence[tuple[str, str]] = (),
    minimise: bool | None = None,
    margin: float | None = None,
    unpaired: bool = False,
    name: str = "scores",
) -> Results:
    """The verdicts on scores that anybody measured, as `transkd judge` prints them; nothing is written.

    `scores` is a pandas DataFrame, columns by name, or a CSV or Parquet file. `arm`, `seed` and `metric` name columns,
    which are guessed where they are None; `contrasts` are pairs (arm, reference); `margin` is in units of the metric.
    Raises UserError where the scores cannot be read or compared.
    """
    from orchestrator.python import judge_scores

    pairs = tuple(f"{one}:{other}" for one, other in contrasts)
    return judge_scores(name, scores, arm, seed, metric, reference, pairs, minimise, margin, unpaired)
