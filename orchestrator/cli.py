"""transkd: the commands for studies (orchestrator/verbs, one file each) and those of the trainer."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

import orchestrator.packages  # noqa: F401 - before our other packages: it says where they are
from orchestrator.verbs.bundle import bundle
from orchestrator.verbs.cluster_init import init_cluster
from orchestrator.verbs.doctor import doctor
from orchestrator.verbs.explain import explain
from orchestrator.verbs.import_ import import_
from orchestrator.verbs.job import app as job_app
from orchestrator.verbs.judge import judge
from orchestrator.verbs.lint import lint_cluster
from orchestrator.verbs.list_ import list_
from orchestrator.verbs.plan import plan
from orchestrator.verbs.repair import repair
from orchestrator.verbs.report import report
from orchestrator.verbs.run import run
from orchestrator.verbs.status import status
from orchestrator.verbs.store import app as store_app
from orchestrator.verbs.submit import submit
from orchestrator.verbs.sync import sync
from orchestrator.verbs.ui import ui
from trainer.cli import Commands, in_one_line, prepare_process, say
from trainer.cli import app as trainer_app

app = typer.Typer(cls=Commands, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
cluster_app = typer.Typer(no_args_is_help=True, help="Cluster specs and launchers.")

GARBAGE = 100_000
"""New objects between two searches for cycles. A ledger is folded into millions of objects without a cycle; Python's
own 700 makes that take twice as long."""


def _print_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        from trainer.config import NUMERICS_VERSION

        try:
            version = metadata.version("transkd")
        except metadata.PackageNotFoundError:
            version = "of a folder that is not installed"
        print(f"transkd {version}, numerics version {NUMERICS_VERSION}")
        raise typer.Exit


@app.callback()
def _verbs(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and end")
    ] = False,
) -> None:
    """TransKD ablations: one YAML file describes a study, one command runs it, one table shows the results."""


for verb in (plan, run, status, report, explain, judge, bundle, sync, ui, submit, doctor, repair):
    app.command()(verb)
app.command("import")(import_)
app.command("list")(list_)
cluster_app.command("lint")(lint_cluster)
cluster_app.command("init")(init_cluster)
app.add_typer(cluster_app, name="cluster")
app.add_typer(job_app, name="job")
app.add_typer(store_app, name="store")
app.registered_commands += trainer_app.registered_commands
app.registered_groups += trainer_app.registered_groups


def guarded(action: Callable[[], object]) -> None:
    """Call `action`. An error is printed in one line; exit codes: failed run 1, user error 2, full disk 3, no Ray 4."""
    from cluster.spec import SpecError
    from orchestrator.running.machines.head_watch import EXIT_CODE, RayLost
    from orchestrator.store.full_disk import StoreFull

    try:
        in_one_line(action, SpecError)
    except StoreFull as error:
        say(f"paused: {error}")
        sys.exit(3)
    except RayLost as error:
        say(f"stopped: {error}")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_CODE)  # at an ordinary exit Ray would wait for its head


def main() -> None:
    """The console command."""
    prepare_process()
    gc.set_threshold(GARBAGE, 10, 10)
    guarded(app)
