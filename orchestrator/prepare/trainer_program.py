"""Programs of the trainer, each run in a process of its own: running out of memory ends only that process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The folder that holds the package `trainer`."""


def run_program(module: str, request: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE` with `request` as its input, and wait for it. The exit code is not checked."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-P", "-m", module],
        input=request,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def last_error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that the program wrote to its error output."""
    return (done.stderr.strip().splitlines() or ["it wrote no error message"])[-1]
