"""Ray's jobs of studies, on the cluster whose dashboard has an address."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.submit.package import Package
from trainer.config import UserError, masked, message_of

ADDRESS = "RAY_API_SERVER_ADDRESS"
DEFAULT = "http://127.0.0.1:8265"
STUDY, STORE, USER = "transkd.study", "transkd.store", "transkd.user"
"""In a job's metadata: its study's name, the store as it was named, and who submitted it."""
STOP_S = 60
"""A driver has so long to stop its runs and to write the report; Ray's own 3 s are too short."""
LOOK_S = 0.5
RUNNING = ("PENDING", "RUNNING")


def connect(address: str | None) -> Any:
    """Ray's client for jobs. Raises UserError where no Ray answers."""
    from ray.job_submission import JobSubmissionClient

    where = address or os.environ.get(ADDRESS) or DEFAULT
    try:
        return JobSubmissionClient(where)
    except Exception as error:  # of many classes: Ray's, urllib3's, aiohttp's
        raise UserError(
            f"--address: no Ray answers at {masked(where)} ({message_of(error)[:200]}); give the dashboard's, such as "
            "http://HEAD:8265, or open a tunnel with `ray dashboard LAUNCHER`"
        ) from None


@contextlib.contextmanager
def _connected(study: str = "") -> Iterator[None]:
    """Errors of the connection become UserError; the job of `study` goes on."""
    import aiohttp

    try:
        yield
    except (
        OSError,
        RuntimeError,
        aiohttp.ClientError,
    ) as error:  # OSError: also those of requests; RuntimeError: Ray's
        goes_on = f"; the job goes on, and its machines stay up: `transkd job logs {study}` follows it" if study else ""
        raise UserError(f"the connection to Ray was lost ({masked(message_of(error))[:200]}){goes_on}") from None


@_connected()
def jobs_of(client: Any, study: str | None = None) -> list[Any]:
    """Jobs that were submitted by `submit`, of one study or of all, the last one last."""
    found = [job for job in client.list_jobs() if job.submission_id and STUDY in (job.metadata or {})]
    ours = [job for job in found if study is None or job.metadata[STUDY] == study]
    return sorted(ours, key=lambda job: job.start_time or 0)


def last_of(client: Any, study: str) -> Any:
    """The last job of a study. Raises UserError where there is none."""
    if not (found := jobs_of(client, study)):
        others = ", ".join(dict.fromkeys(job.metadata[STUDY] for job in jobs_of(client))) or "none"
        raise UserError(f"no job of study {study} was submitted to this cluster; studies with jobs: {others}")
    return found[-1]


@_connected()
def submit(client: Any, package: Package, options: Sequence[str]) -> str:
    """Submit a study; returns the job's id. Raises UserError where a job of it runs on the same store."""
    name = package.study.name
    words = ["python", "ablations/grid.py", *package.words, *options]
    about = {STUDY: name, STORE: _store_in(words), USER: getpass.getuser()}
    for job in jobs_of(client, name):
        if job.status in RUNNING and job.metadata.get(STORE) == about[STORE]:
            raise UserError(
                f"study {name} is {job.status.lower()} as job {job.submission_id} of {job.metadata.get(USER)}; see "
                f"`transkd job logs {name}`, or end it with `transkd job stop {name}`"
            )
    environment = {"working_dir": str(package.folder), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)}}
    return str(client.submit_job(entrypoint=shlex.join(words), runtime_env=environment, metadata=about))


def _store_in(words: Sequence[str]) -> str:
    """What a command line says of its store: by `--store`, else by the spec."""
    named = [*words[words.index("--store") :][1:2]] if "--store" in words else []
    return "".join(named or ([*words[words.index("--cluster") :][1:2]] if "--cluster" in words else []))


def follow(client: Any, job: str, study: str) -> int:
    """Print what a job says until it ends; returns its exit code."""

    async def tail() -> None:
        async for text in client.tail_job_logs(job):
            print(text, end="", flush=True)

    with _connected(study):
        asyncio.run(tail())
        info = ended(client, job)
    if why := reason(info):
        print(f"{study}: job {job}: {why}", file=sys.stderr)
    return code_of(info)


def reason(info: Any) -> str:
    """Why a job failed before its driver began, which its log does not say; empty elsewhere."""
    return masked(message_of(info.message)) if info.status == "FAILED" and info.driver_exit_code is None else ""


def ended(client: Any, job: str) -> Any:
    """A job's details, once it has ended."""
    while (info := client.get_job_info(job)).status in RUNNING:
        time.sleep(LOOK_S)
    return info


def code_of(info: Any) -> int:
    """The exit code of a job that has ended: that of its driver, 130 where it was stopped."""
    if info.status == "STOPPED":
        return 130
    if info.status == "SUCCEEDED":
        return 0
    return int(info.driver_exit_code or 1)
