"""python -m trainer: the verbs of one model, in one process, without a cluster."""

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
    """Train one model of TransKD in one process, then measure it, look at what it sees, and take it elsewhere."""


app.command()(fit)
app.command("eval")(evaluate)
app.command()(predict)
app.command()(export)
app.add_typer(data_app, name="data")


def in_one_line(action: Callable[[], object], *refusals: type[Exception]) -> None:
    """Do it; a failed run (its loss, its memory) is one line and exit code 1, a user's mistake (UserError, `refusals`)
    one line and code 2, a full disk one line and code 3."""
    try:
        action()
    except (UserError, *refusals) as error:  # type: ignore[misc]
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            print("stopped; run the same command again to go on", file=sys.stderr)
        raise
    except Exception as error:
        cause, reason = failure_of(error)
        if cause == "disk":
            print(f"stopped: {reason}; make room and run the same command again", file=sys.stderr)
            sys.exit(3)
        if cause in ("nan", "memory"):
            print(f"failed: {reason}", file=sys.stderr)
            sys.exit(1)
        if isinstance(error, OSError) and error.filename is not None:
            print(f"error: {error.filename}: {error.strerror}; correct the path or its permissions", file=sys.stderr)
            sys.exit(2)
        raise


def main() -> None:
    """Run a verb."""
    in_one_line(app)
