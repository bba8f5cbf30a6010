"""The commands of `python -m trainer`, which work on one model in one process, without a cluster."""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from trainer.config import UnreachableError, UserError, masked, missing_in, printable
from trainer.config.blame import blamed
from trainer.config.input_files import refuse_undecodable, with_home
from trainer.config.masked_output import MaskedOutput
from trainer.files.failure import failure_of
from trainer.verbs.data import app as data_app
from trainer.verbs.eval import evaluate
from trainer.verbs.export import export
from trainer.verbs.fit import fit
from trainer.verbs.plugin import app as plugin_app
from trainer.verbs.predict import predict


def argument_with_home(argument: str) -> str:
    """An argument of a command line with the home folder for `~` where a path begins: `~/x`, `--out=~/x`, `NAME=~/x`.

    Shells replace only some of these. `--set teacher=~` is no path but YAML's null, and stays.
    """
    before, tilde, after = argument.partition("~")
    whole = before.startswith("--") and before.count("=") == 1  # `--store=~`
    begins = not before or (before.endswith("=") and (whole or "/" in after))
    return before + with_home(tilde + after) if begins else argument


USAGE_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""Typer's error for a wrong command line; it exports only kinds of it."""


class Commands(TyperGroup):
    """Commands that take `~` for the home folder in every path, only text in UTF-8, and repeat no password."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the command line of the group itself."""
        with _usage_errors_masked():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Read the command line of a command, and run it."""
        with _usage_errors_masked():
            return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read a command line. Raises UserError for an argument that is not UTF-8."""
        for argument in args:
            refuse_undecodable(argument)
        return super().parse_args(ctx, [argument_with_home(argument) for argument in args])


@contextlib.contextmanager
def _usage_errors_masked() -> Iterator[None]:
    """A wrong argument may be an address, and Typer repeats it."""
    try:
        yield
    except USAGE_ERROR as error:
        error.message = printable(masked(error.message))
        raise


app = typer.Typer(cls=Commands, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _verbs() -> None:
    """Train one TransKD model in one process, evaluate it, predict with it and export it."""


app.command()(fit)
app.command("eval")(evaluate)
app.command()(predict)
app.command()(export)
app.add_typer(data_app, name="data")
app.add_typer(plugin_app, name="plugin")


def in_one_line(action: Callable[[], object], *refusals: type[Exception]) -> None:
    """Call `action` and end with one line and an exit code where it fails; see `say`.

    1: the run failed (loss not finite, out of memory, GPU failed). 2: the user's mistake (UserError, `refusals`, a path
    that cannot be used, an extra that is missing, what a plugin raises). 3: the disk is full. 4: what lies elsewhere
    does not answer (UnreachableError). Other exceptions are raised.
    """
    try:
        action()
    except (UserError, *refusals) as error:  # type: ignore[misc]
        say(f"error: {error}")
        sys.exit(4 if isinstance(error, UnreachableError) else 2)
    except ModuleNotFoundError as error:
        if not (told := missing_in(error)):
            raise
        say(f"error: this command needs {told}")
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130 and type(end) is SystemExit:  # typer's exit code for Ctrl-C
            say("stopped; run the same command again to go on")
        raise
    except Exception as error:
        cause, reason = failure_of(error)
        if cause == "disk":
            say(f"stopped: {reason}; make room and run the same command again")
            sys.exit(3)
        if cause in ("nan", "memory", "device"):
            say(f"failed: {reason}")
            sys.exit(1)
        if cause == "user" and blamed(error):
            say(f"error: {reason}")
            sys.exit(2)
        if isinstance(error, OSError) and error.filename is not None:
            say(f"error: {error.filename}: {error.strerror}; correct the path or its permissions")
            sys.exit(2)
        raise


def say(text: str) -> None:
    """Print a line to the error output, without passwords and control characters."""
    print(printable(masked(text)), file=sys.stderr)


def prepare_process() -> None:
    """Make UTF-8 the encoding of paths, arguments and output in any locale, keep passwords out of all that is printed,
    give Ray its temporary folder without `~`, and end without a last collection of garbage.

    Python reads arguments before any of our code runs: in another locale this process starts again in UTF-8 mode. At
    the end Python would look through all that torch, Ray and MLflow have made, several times, before it is freed.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, MaskedOutput):
            setattr(sys, name, MaskedOutput(stream))
    for name in {"RAY_TMPDIR", "TMPDIR"} & os.environ.keys():
        os.environ[name] = with_home(os.environ[name])
    atexit.register(gc.freeze)  # the first registered is the last called


def main() -> None:
    """Run the command line."""
    prepare_process()
    in_one_line(app)
