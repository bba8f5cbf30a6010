"""submit: run a study as a job on a Ray cluster, and follow it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.verbs.job import AddressOption, JobEnded, left
from orchestrator.verbs.options import ClusterOption, HoursOption, RetryOption, StoreOption, StudyName, WorkersOption
from trainer.config import UserError, require


def submit(
    study: StudyName,
    cluster: ClusterOption = None,
    address: AddressOption = None,
    store: StoreOption = None,
    data_root: Annotated[
        list[str] | None, typer.Option("--data-root", help="as for `run`, a folder of the cluster's machines")
    ] = None,
    workers: WorkersOption = None,
    max_gpu_hours: HoursOption = None,
    retry_failed: RetryOption = False,
    follow: Annotated[
        bool, typer.Option(help="print what the job says until it ends; Ctrl-C leaves it running")
    ] = True,
    down_after: Annotated[
        Path | None, typer.Option(metavar="LAUNCHER", help="`ray down LAUNCHER` when the job has ended")
    ] = None,
) -> None:
    """Submit a study to a Ray cluster: what git tracks here, the study, its plugins and the spec are sent. Submitted
    again after its end it goes on where it stopped."""
    from cluster.spec_file import load as load_spec
    from orchestrator.store.folder import checked
    from orchestrator.submit import ray_jobs
    from orchestrator.submit.package import pack

    require("submit", "ray")
    if down_after is not None and not (follow and down_after.is_file()):
        raise UserError(f"--down-after must be a launcher file, without --no-follow, but got {down_after}")
    stated = load_spec(cluster).store
    for origin, value in (("--store", store), ("cluster spec", stated)):
        if value is not None:  # TRANSKD_STORE is this machine's
            checked(origin, value)
            break
    for root in data_root or []:
        if not any(Path(folder).is_absolute() for folder in (root, root.partition("=")[2])):
            raise UserError(f"--data-root must be an absolute path, of the cluster's machines, but got {root}")
    options = [
        *(["--store", str(store)] if store is not None else []),
        *(word for root in data_root or [] for word in ("--data-root", root)),
        *(["--workers", workers] if workers is not None else []),
        *(["--max-gpu-hours", str(max_gpu_hours)] if max_gpu_hours is not None else []),
        *(["--retry-failed"] if retry_failed else []),
    ]
    with tempfile.TemporaryDirectory(prefix="transkd-job-") as folder:
        package = pack(Path(__file__).parents[2], study, cluster, Path(folder))
        name, about = package.study.name, package.about
        if store is None and stated is None:
            about = [*about, "no store is named: without --store it is a folder in the home of the head"]
        for line in about:
            print(f"{name}: {line}", file=sys.stderr)
        client = ray_jobs.connect(address)
        job = ray_jobs.submit(client, package, options)
    print(f"{name}: job {job}; `transkd job logs {name}` shows it, `transkd job stop {name}` ends it", file=sys.stderr)
    if not follow:
        return
    with left(name):
        code = ray_jobs.follow(client, job, name)
    if down_after is not None:
        down = [sys.executable, "-m", "ray.scripts.scripts", "down", "-y", str(down_after)]
        code = subprocess.run(down, check=False).returncode or code
    if code:
        raise JobEnded(code)
