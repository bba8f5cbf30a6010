"""Entry point of Ray jobs: `ray job submit --working-dir . -- python ablations/grid.py STUDY`; also runs by itself.

Runs studies one after the other, as `transkd run` does. Inside a Ray job it joins the cluster of the job.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

# A job's working directory is an unpacked archive: import the packages in it, not those that may be installed. Python
# puts this file's folder first, where our `statistics` would hide Python's; Ray would tell its workers to do the same.
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(folder for folder in sys.path if Path(folder).resolve() != HERE)]

import typer

from orchestrator.cli import guarded, prepare_process
from orchestrator.verbs.options import (
    ClusterOption,
    HoursOption,
    RetryOption,
    RootsOption,
    StoreOption,
    WorkersOption,
)
from orchestrator.verbs.run import check_all, launch
from trainer.cli import argument_with_home

IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray for the entrypoint of a submitted job."""


def main(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="packaged studies or YAML files")],
    cluster: ClusterOption = None,
    store: StoreOption = None,
    data_root: RootsOption = None,
    workers: WorkersOption = None,
    max_gpu_hours: HoursOption = None,
    retry_failed: RetryOption = False,
) -> None:
    """Run what is missing of each study, and print its table."""
    join = IN_A_JOB in os.environ
    check_all(studies, cluster, store, data_root)
    options = (cluster, store, data_root, workers, max_gpu_hours)
    failed = [launch(study, *options, retry_failed=retry_failed, join=join) for study in studies]
    if any(failed):
        sys.exit(1)


if __name__ == "__main__":
    prepare_process()
    sys.argv[1:] = map(argument_with_home, sys.argv[1:])
    guarded(lambda: typer.run(main))
