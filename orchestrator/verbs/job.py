"""job: the jobs of submitted studies on a Ray cluster: their state, what they say, and their end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer

AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="the cluster's dashboard [RAY_API_SERVER_ADDRESS, http://127.0.0.1:8265]"),
]
JobStudy = Annotated[str, typer.Argument(metavar="STUDY", help="the name of a study that was submitted")]


class JobEnded(SystemExit):
    """A job has ended with an exit code, or is followed no more (130): what ends is not this command's own work."""


app = typer.Typer(no_args_is_help=True, help="Submitted studies.")


@app.command()
def status(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="[all]")] = None, address: AddressOption = None
) -> None:
    """Print the jobs of a study, or of all, the last one last."""
    from orchestrator.submit.ray_jobs import STUDY, USER, connect, jobs_of, last_of, reason

    client = connect(address)
    if study is not None:
        last_of(client, study)
    for job in jobs_of(client, study):
        begun = datetime.fromtimestamp((job.start_time or 0) / 1000, UTC).isoformat(timespec="seconds")
        said = f"{job.status.lower()}, of {job.metadata.get(USER)}, since {begun}"
        why = f": {reason(job)}" if reason(job) else ""
        print(f"{job.metadata[STUDY]}: {job.submission_id}: {said}{why}")


@app.command()
def logs(study: JobStudy, address: AddressOption = None) -> None:
    """Print what the last job of a study says, until it ends. Ctrl-C leaves it running."""
    from orchestrator.submit.ray_jobs import connect, follow, last_of

    client = connect(address)
    with left(study):
        code = follow(client, last_of(client, study).submission_id, study)
    if code:
        raise JobEnded(code)


@app.command()
def stop(study: JobStudy, address: AddressOption = None) -> None:
    """End the job of a study. Submitted again, it goes on where it stopped."""
    from orchestrator.submit.ray_jobs import RUNNING, connect, ended, last_of
    from trainer.config import UserError

    client = connect(address)
    job = last_of(client, study)
    if job.status not in RUNNING:
        raise UserError(f"study {study} has no job that runs; the last, {job.submission_id}, is {job.status.lower()}")
    client.stop_job(job.submission_id)
    print(f"{study}: job {job.submission_id}: {ended(client, job.submission_id).status.lower()}")


@contextlib.contextmanager
def left(study: str) -> Iterator[None]:
    """Where Ctrl-C ends the following of a job, say that the job goes on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nthe job goes on; `transkd job logs {study}` follows it again", file=sys.stderr)
        raise JobEnded(130) from None
