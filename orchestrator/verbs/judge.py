"""judge: the table, verdicts and page of scores that anybody measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.config import UserError

if TYPE_CHECKING:
    from orchestrator.judging.frame import Frame


def judge(
    results: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="CSV or Parquet: a row for each run, or a column for each arm")
    ] = None,
    arm: Annotated[str | None, typer.Option("--arm", help="column of the arms [guessed by its name]")] = None,
    seed: Annotated[str | None, typer.Option("--seed", help="column of the seeds; those of one seed are pairs")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="column of the scores")] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", help="the arm that all others are compared with")
    ] = None,
    contrasts: Annotated[
        list[str] | None, typer.Option("--contrasts", metavar="ARM:REFERENCE", help="two arms to compare; repeatable")
    ] = None,
    minimise: Annotated[bool | None, typer.Option("--minimise/--maximise", help="less is better, or more")] = None,
    margin: Annotated[
        float | None, typer.Option("--margin", help="arms that differ by less are equivalent, in units of the metric")
    ] = None,
    unpaired: Annotated[bool, typer.Option("--unpaired", help="equal seeds are no pairs")] = False,
    mlflow: Annotated[str | None, typer.Option("--mlflow", metavar="EXPERIMENT", help="instead of a file")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", help="MLflow's server or database [MLFLOW_TRACKING_URI]")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder for the files [NAME-judged beside FILE]")] = None,
) -> None:
    """Print the table and verdicts of anybody's scores, and write text, Markdown, LaTeX, CSV, Parquet and a page."""
    from orchestrator.judging.files import check_folder, write
    from orchestrator.judging.judged import judged
    from orchestrator.judging.scores import Choices, check_margin
    from orchestrator.terminal.table import show

    check_margin(margin)
    name, frame = _frame(results, mlflow, tracking_uri)
    folder = out or (results.with_name(f"{name}-judged") if results else Path(f"{name.replace('/', '-')}-judged"))
    check_folder("--out", folder, results)
    choices = Choices(arm, seed, metric, reference, tuple(contrasts or ()), minimise, margin, unpaired)
    found = judged(name, frame, choices)
    for remark in found.remarks:
        typer.echo(remark, err=True)
    show(found.table)
    typer.echo(f"page: {write(found, folder, frame.source)}", err=True)


def _frame(results: Path | None, mlflow: str | None, tracking_uri: str | None) -> tuple[str, Frame]:
    """The name of what is judged, and its frame."""
    if (results is None) == (mlflow is None):
        raise UserError("give a FILE, or --mlflow EXPERIMENT; `transkd judge --help` lists both")
    if results is not None:
        from orchestrator.judging.frame import read_frame

        if tracking_uri is not None:
            raise UserError("--tracking-uri belongs to --mlflow EXPERIMENT; leave it out for a file")
        return results.stem, read_frame(results)
    from orchestrator.judging.mlflow_runs import read_experiment

    assert mlflow is not None
    return mlflow, read_experiment(mlflow, tracking_uri)
