"""run: train the missing runs of a study and print its table; also called by Ray jobs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from orchestrator.verbs.options import (
    ClusterOption,
    HoursOption,
    RetryOption,
    RootsOption,
    StoreOption,
    StudyName,
    WorkersOption,
    files_read,
    roots_of,
    store_of,
)
from trainer.config import UserError, counted, require

if TYPE_CHECKING:
    from ablations.study.schema import Study
    from orchestrator.report.page.data import Report
    from orchestrator.store.folder import Store
    from orchestrator.tracking.arm_record import ArmRecord
    from orchestrator.tracking.mirror import Mirror

NEEDED = ("torch", "ray", "optuna", "mlflow")
"""What a study needs beyond the core. Checked before a file is written."""


def run(
    study: StudyName,
    cluster: ClusterOption = None,
    store: StoreOption = None,
    data_root: RootsOption = None,
    workers: WorkersOption = None,
    max_gpu_hours: HoursOption = None,
    retry_failed: RetryOption = False,
) -> None:
    """Train the missing runs of a study, and print its table. Finished runs are not trained again."""
    if launch(study, cluster, store, data_root or [], workers, max_gpu_hours, retry_failed=retry_failed):
        sys.exit(1)


def check_all(
    studies: list[str], cluster: str | None = None, store: Path | None = None, data_roots: list[str] | None = None
) -> None:
    """Read every study of a job before the first of them trains. Raises UserError for one that is wrong."""
    from orchestrator.state.stored_studies import load_study
    from orchestrator.store.ledger import Ledger

    require("run", *NEEDED)
    ledger = Ledger(store_of(store, cluster).ledger)
    for study in studies:
        roots_of(load_study(study, ledger), data_roots or [])


def launch(
    study: str,
    cluster: str | None = None,
    store: Path | None = None,
    data_roots: list[str] | None = None,
    workers: str | None = None,
    max_gpu_hours: float | None = None,
    *,
    retry_failed: bool = False,
    join: bool = False,
) -> int:
    """Run a study, for `transkd run` and `ablations/grid.py`; returns how many runs did not finish, without trials.

    Runs that failed because a loss was not finite are only retried with `retry_failed`. `join` uses the Ray of this
    machine instead of starting one.
    """
    from orchestrator.state.stored_studies import study_source
    from orchestrator.store.ledger import Ledger

    where = store_of(store, cluster)
    found = study_source(study, Ledger(where.ledger))
    return launch_read(
        found.read(),
        found.text,
        where,
        cluster,
        data_roots or [],
        workers,
        max_gpu_hours,
        read=files_read(study, cluster),
        retry_failed=retry_failed,
        join=join,
    )


def launch_read(
    loaded: Study,
    text: str,
    where: Store,
    cluster: str | None,
    data_roots: list[str],
    workers: str | None = None,
    max_gpu_hours: float | None = None,
    *,
    read: list[Path],
    retry_failed: bool = False,
    join: bool = False,
) -> int:
    """`launch` of a study that has been read from this YAML; the report is not written over the files in `read`."""
    require("run", *NEEDED)
    from cluster.spec_file import load as load_spec
    from cluster.spec_file import with_workers
    from orchestrator.report.files import PAGE, check_folder
    from orchestrator.running.ray_session import check_address
    from orchestrator.search.learn_from import learn_from_line
    from orchestrator.store.full_disk import pausing
    from orchestrator.store.provenance import begin
    from orchestrator.store.sharing import group_id, share, write_as_shared
    from orchestrator.terminal.live_view import view
    from orchestrator.terminal.log_lines import StudyProgress
    from orchestrator.terminal.table import show
    from orchestrator.tracking.address import page_of, uri_of
    from orchestrator.tracking.also import check_trackers
    from orchestrator.tracking.mirror import Mirror
    from orchestrator.tracking.sender import in_one_line

    console = Console(highlight=False)
    spec = load_spec(cluster)
    if workers is not None:
        spec = with_workers(spec, workers)
    if join and spec.address == "local":
        spec = spec.model_copy(update={"address": "auto"})
    check_address(spec.address)
    check_trackers(spec.other_trackers)
    uri, folder = uri_of(where), where.report_dir(loaded.name)
    if spec.group is not None:
        group_id(spec.group)
        if where.shared is not None:
            raise UserError(f"group: is for a store in a folder but the store is {where.name}; remove it")
    check_folder("the report", folder, where, read)
    from orchestrator.launch import Launch
    from orchestrator.prepare.plugins import activate
    from orchestrator.runs_left import count_all, count_left, unfinished

    activate(loaded)
    job = Launch(loaded, spec, where, roots_of(loaded, data_roots), retry_failed=retry_failed)

    def say(text: str) -> None:
        console.print(Text(f"{loaded.name}: {text}", style="dim"), soft_wrap=True)

    job.prepare(say)
    if max_gpu_hours is not None and spec.most_gpus:
        from orchestrator.prepare.estimate import estimate, refuse

        left = estimate(job.state, spec, where, job.preparer.roots, retry_failed=retry_failed)
        refuse(left, loaded.name, spec, max_gpu_hours)
    said = f"{loaded.name}: {counted(count_all(job.state), 'run')}, {count_left(job.state)} to do; store {where.name}"
    console.print(Text(said, style="dim"), soft_wrap=True)
    if where.databases != where.root:
        say(f"MLflow's and Optuna's databases are kept in {where.databases}, as the store is on a network file system")
    if taught := learn_from_line(loaded, job.ledger):
        console.print(Text(taught, style="dim"), soft_wrap=True)
    if count_left(job.state):
        _look(where, say)
    if spec.group is not None:
        share(where.root, spec.group)
        write_as_shared(where.root)
    with pausing(where.root), where.leases.study(loaded.name):
        begin(loaded.name, text, job.ledger, where, job.sources, loaded.base.get("plugins", []))
        mirror = Mirror(loaded.name, where, spec.other_trackers)
        job.close = lambda: _close(loaded, where, mirror, finished=False)
        try:
            job.run(mirror, lambda: view(console, StudyProgress(job.state)), say)
        except BaseException:
            try:
                _close(loaded, where, mirror, finished=False)
            except Exception as error:  # the error that ended the study matters more
                print(f"no report: {in_one_line(error)}", file=sys.stderr)
            raise
        say("writing the report, and sending MLflow what it lacks")
        report = _close(loaded, where, mirror, finished=True)
    console.print()
    show(report.table, console)
    print(f"page: {folder / PAGE}", file=sys.stderr)
    print(f"MLflow: {page_of(uri, loaded.name)}", file=sys.stderr)
    failed = unfinished(job.state)
    if failed:
        label, why = next(iter(failed.items()))
        final = any(reason.startswith("nan") for reason in failed.values())
        remedy = "; runs with a NaN loss are only retried with --retry-failed" if final else ""
        print(
            f"failed: {len(failed)} of {counted(count_all(job.state), 'run')}, the first {label}: {why}{remedy}",
            file=sys.stderr,
        )
    return len(failed)


def _look(store: Store, say: Callable[[str], None]) -> None:
    """Say what is wrong with this machine; raise UserError where runs cannot be kept."""
    from orchestrator.health import PROBLEM, before_a_study

    for line in before_a_study(store):
        text = f"{line.what}: {line.found}; {line.remedy}"
        if line.state == PROBLEM:
            raise UserError(text)
        say(text)


def _close(study: Study, store: Store, mirror: Mirror, *, finished: bool) -> Report:
    """Write the study's report and send it to tracking, which is closed even if writing fails."""
    # plotly uses pandas if it is imported, and the sender's thread may be in the middle of importing it
    import pandas  # noqa: F401

    from orchestrator.report.files import write
    from orchestrator.report.page.data import report_of
    from orchestrator.search.optuna_dashboard import mirror as searches_to_optuna
    from orchestrator.state.study_state import StudyState
    from orchestrator.store.ledger import Ledger
    from orchestrator.tracking.arm_record import arm_records

    files: list[Path] = []
    arms: list[ArmRecord] = []
    try:
        state = StudyState(study, Ledger(store.ledger))
        report = report_of(state, store)
        files = write(report, store.report_dir(study.name))
        arms = arm_records(state, report.table)
    finally:
        if mirror.close(files, arms=arms, finished=finished):
            print(f"MLflow lacks a part of this study; `transkd sync {study.name}` sends it", file=sys.stderr)
    if lacking := searches_to_optuna(study, store):
        print(lacking, file=sys.stderr)
    return report
