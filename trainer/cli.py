"""python -m trainer: the verbs of one model, in one process, without a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from trainer.config import NumericalError, UserError
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
    """Do it; a user's mistake (UserError, `refusals`) is one line and exit code 2, a failed run one line and code 1."""
    try:
        action()
    except (UserError, *refusals) as error:  # type: ignore[misc]
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}; correct the path or its permissions", file=sys.stderr)
        sys.exit(2)
    except NumericalError as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            print("stopped; run the same command again to go on", file=sys.stderr)
        raise


def main() -> None:
    """Run a verb."""
    in_one_line(app)
