"""transkd: plan, run, status, report, sync and ui for studies; the trainer's own verbs beside them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from trainer.cli import app as trainer_app
from trainer.cli import in_one_line
from trainer.config import UserError, located

if TYPE_CHECKING:
    from ablations.study import Study
    from orchestrator.store import Store

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
cluster_app = typer.Typer(no_args_is_help=True, help="Cluster specs.")
app.add_typer(cluster_app, name="cluster")

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="a packaged study's name, or a YAML file")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", help="folder of ledger, runs and tracking [TRANSKD_STORE, ~/transkd-store]")
]
ClusterOption = Annotated[str | None, typer.Option("--cluster", help="cluster spec: a name (local, gpu) or a file")]
RootsOption = Annotated[
    list[str] | None, typer.Option("--data-root", help="folder of the study's data set, or NAME=FOLDER; repeatable")
]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="processes a run, instead of the spec's")]


@app.callback()
def _verbs() -> None:
    """TransKD as a system: any ablation is one YAML file, one command, and one table that can be believed."""


@app.command()
def plan(study: StudyName, store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """List every run of a study, what it changes, and what it costs. Starts nothing."""
    from ablations.plan import expand
    from ablations.study import load
    from orchestrator.ledger import Ledger
    from orchestrator.listing import show_costs, show_plan
    from orchestrator.results import known

    console = Console(highlight=False)
    loaded, where = load(study), _store(store, cluster)
    runs = expand(loaded)
    show_plan(loaded, runs, known(loaded, Ledger(where.ledger)), console)
    from trainer.build import check

    firsts = {run.arm: run.config for run in reversed(runs)}
    costs = {}
    for arm in dict.fromkeys(run.arm for run in runs):
        with located(f"{loaded.name}: {arm}"):
            costs[arm] = check(firsts[arm], where.cache)
    if costs:
        show_costs(costs, runs[0].config.data.size, console)


@app.command()
def run(
    study: StudyName,
    cluster: ClusterOption = None,
    store: StoreOption = None,
    data_root: RootsOption = None,
    workers: WorkersOption = None,
) -> None:
    """Run what a study lacks, and print its table. Run again: nothing is done twice."""
    if launch(study, cluster, store, data_root or [], workers):
        sys.exit(1)


def launch(
    study: str,
    cluster: str | None = None,
    store: Path | None = None,
    data_roots: list[str] | None = None,
    workers: int | None = None,
    *,
    join: bool = False,
) -> int:
    """What `transkd run` and `ablations/grid.py` do, and how many runs did not finish, trials of a search aside.

    `join` takes the Ray that is here instead of the spec's own.
    """
    from ablations.study import load
    from cluster.spec import load as load_spec
    from cluster.spec import with_workers
    from orchestrator.mirror import Mirror
    from orchestrator.progress import view
    from orchestrator.report import show, write
    from orchestrator.results import table

    console = Console(highlight=False)
    loaded = load(study)
    spec = load_spec(cluster)
    if workers is not None:
        spec = with_workers(spec, workers)
    if join and spec.address == "local":
        spec = spec.model_copy(update={"address": "auto"})
    where = _store(store, cluster)
    from orchestrator.launch import Launch

    job = Launch(loaded, spec, where, _roots(loaded, data_roots or []))
    job.prepare(lambda text: console.print(Text(f"{loaded.name}: {text}", style="dim")))
    jobs = [*job.teachers.values(), *job.arms]
    total = len(jobs) + (loaded.search.trials if loaded.search else 0)
    missing = len(job.missing(jobs)) + job.trials_left()
    said = f"{loaded.name}: {total} runs, {missing} to do; store {where.root}"
    console.print(Text(said, style="dim"), soft_wrap=True)
    with where.lease():
        mirror = Mirror(loaded.name, where)
        try:
            job.run(mirror, lambda count, epochs: view(console, count, epochs))
        finally:
            result = table(loaded, where)
            write(result, where.root / "studies" / loaded.name)
            mirror.close(result)
    console.print()
    show(result, console)
    failed = job.missing(jobs)
    if failed:
        why = job.ledger.outcomes()[failed[0].run_id].reason
        print(f"failed: {len(failed)} of {total} runs, the first {failed[0].label}: {why}", file=sys.stderr)
    return len(failed)


@app.command()
def status(study: StudyName, store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """Say where a study stands. Works beside the driver that runs it."""
    from ablations.study import load
    from orchestrator.standing import standing

    loaded, where = load(study), _store(store, cluster)
    now = standing(loaded, where)
    counts = ", ".join(f"{count} {state}" for state, count in now.counts.items())
    print(f"{loaded.name}: {len(now.parts)} runs: {counts}; driver: {now.driver or 'none'}")
    for part in now.parts:
        if part.state in ("running", "interrupted"):
            miou = "" if part.miou is None else f"  mIoU {part.miou:.2f}"
            print(f"  {part.label}: {part.state} at epoch {part.epoch}/{part.epochs}{miou}")


@app.command()
def report(study: StudyName, store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """Print a study's table as the ledger stands now."""
    from ablations.study import load
    from orchestrator.report import show, write
    from orchestrator.results import table

    loaded, where = load(study), _store(store, cluster)
    result = table(loaded, where)
    if where.ledger.exists():
        write(result, where.root / "studies" / loaded.name)
    show(result)


@app.command()
def sync(study: StudyName, store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """Send to MLflow what it lacks of a study; twice adds nothing."""
    from ablations.study import load
    from orchestrator.mirror import sync as send
    from orchestrator.results import table

    loaded, where = load(study), _store(store, cluster)
    with where.lease():
        sent, failed = send(loaded, where, table(loaded, where))
    print(f"{sent} runs are up to date at {where.mlflow_uri}" + (f", {failed} are not" if failed else ""))
    if failed:
        sys.exit(1)


@app.command()
def ui(
    store: StoreOption = None,
    cluster: ClusterOption = None,
    port: Annotated[int, typer.Option(help="port of the page")] = 5000,
) -> None:
    """Open MLflow's page on the store. Ctrl-C ends it."""
    where = _store(store, cluster)
    where.root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", where.mlflow_uri, "--port", str(port)]
    os.execv(sys.executable, command)


@cluster_app.command("lint")
def lint_cluster(
    file: Annotated[str, typer.Argument(metavar="SPEC", help="a spec's name or file, or a launcher file")],
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="spec to run on a launcher's machines [aws for ray-up-aws.yaml]")
    ] = None,
) -> None:
    """Say what would hang, or cost money for nothing: of a spec on this machine, or on the machines of a launcher."""
    from cluster.launcher import is_launcher, lint_launcher, read, spec_beside
    from cluster.lint import lint
    from cluster.spec import load as load_spec
    from orchestrator.session import here

    path = Path(file).expanduser()
    if is_launcher(path):
        findings = lint_launcher(read(path), load_spec(cluster or spec_beside(path)))
    else:
        findings = lint(load_spec(file), *here())
    for finding in findings:
        print(f"{finding.code}: {finding.message}; {finding.remedy}")
    if findings:
        sys.exit(1)
    print("nothing to mend")


def _store(option: Path | None, cluster: str | None) -> Store:
    from cluster.spec import load as load_spec
    from orchestrator.store import Store, resolve

    return Store(resolve(option, load_spec(cluster).store))


def _roots(study: Study, given: list[str]) -> dict[str, Path]:
    """Data set name -> folder from `--data-root FOLDER` (the study's own data set) or `NAME=FOLDER`."""
    roots = {}
    for text in given:
        own = study.base.get("data", {}).get("name", "scenes")
        name, equals, folder = text.partition("=")
        if not equals or Path(text).expanduser().is_dir():  # a folder's name may hold a `=`
            name, folder = own, text
        if name != own:
            raise UserError(f"--data-root: the study's data set is {own}, not {name}; write FOLDER or {own}=FOLDER")
        path = Path(folder).expanduser().absolute()
        if not path.is_dir():
            raise UserError(f"--data-root: no such folder: {path}")
        roots[name] = path
    return roots


app.registered_commands += trainer_app.registered_commands
app.registered_groups += trainer_app.registered_groups


def guarded(action: Callable[[], object]) -> None:
    """Do it; a user's mistake is one line and exit code 2, a failed run one line and exit code 1."""
    from cluster.spec import SpecError

    in_one_line(action, SpecError)


def main() -> None:
    """The console command."""
    guarded(app)
