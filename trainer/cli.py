"""The commands of `python -m trainer`, which work on one model in one process, without a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from trainer.config import UserError
from trainer.files.failure import failure_of
from trainer.verbs.data import app as data_app
from trainer.verbs.eval import evaluate
from trainer.verbs.export import export
from trainer.verbs.fit import fit
from trainer.verbs.predict import predict

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _verbs() -> None:
    """Train one TransKD model in one process, evaluate it, predict with it and export it."""


app.command()(fit)
app.command("eval")(evaluate)
app.command()(predict)
app.command()(export)
app.add_typer(data_app, name="data")


def in_one_line(action: Callable[[], object], *refusals: type[Exception]) -> None:
    """Call `action` and end with one line and an exit code where it fails.

    1: the run failed (loss not finite, out of memory, GPU failed). 2: the user's mistake (UserError, `refusals`, a path
    that cannot be used). 3: the disk is full. Other exceptions are raised.
    """
    try:
        action()
    except (UserError, *refusals) as error:  # type: ignore[misc]
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # typer's exit code for Ctrl-C
            print("stopped; run the same command again to go on", file=sys.stderr)
        raise
    except Exception as error:
        cause, reason = failure_of(error)
        if cause == "disk":
            print(f"stopped: {reason}; make room and run the same command again", file=sys.stderr)
            sys.exit(3)
        if cause in ("nan", "memory", "device"):
            print(f"failed: {reason}", file=sys.stderr)
            sys.exit(1)
        if isinstance(error, OSError) and error.filename is not None:
            print(f"error: {error.filename}: {error.strerror}; correct the path or its permissions", file=sys.stderr)
            sys.exit(2)
        raise


def main() -> None:
    """Run the command line."""
    in_one_line(app)
