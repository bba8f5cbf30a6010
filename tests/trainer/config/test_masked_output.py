"""MaskedOutput: what any code prints holds no password: tracebacks, logs, threads and warnings of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import logging, sys, threading, warnings
from {module} import app, main

@app.command()
def broken():
    print("as a result: http://u:hunter2@h", flush=True)
    print("as a diagnosis: http://u:hunter2@h", file=sys.stderr)
    logging.getLogger("mlflow").error("as a log: %s", "password=hunter2")
    warnings.warn("as a warning: password hunter2")
    thread = threading.Thread(target=lambda: 1 / len({{}}["http://u:hunter2@h"]))
    thread.start()
    thread.join()
    raise RuntimeError("as a traceback: http://u:hunter2@h, and of our environment t0ken-of-mine")

sys.argv = ["x", "broken"]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["trainer.cli", "orchestrator.cli"])
def test_nothing_that_a_command_prints_holds_a_password(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM.format(module=module)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "WANDB_API_KEY": "t0ken-of-mine"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == "as a result: http://***@h\n"
    for what in ("a diagnosis: http://***@h", "a log: password=***", "a warning: password ***", "KeyError"):
        assert what in done.stderr
    assert "as a traceback: http://***@h, and of our environment ***" in done.stderr
    assert "t0ken-of-mine" not in done.stderr
    assert "hunter2" not in done.stderr
