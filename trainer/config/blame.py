"""Whose fault an exception or a wrong value is: the plugin's whose code it came out of. No plugin need be loaded."""

from __future__ import annotations

import contextlib
import errno
import functools
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from trainer.config.errors import NumericalError, UserError
from trainer.config.text import message_of

_plugins: dict[str, str] = {}
"""Top-level module -> the name of the plugin that it belongs to."""


def answers_for(module: str, plugin: str) -> None:
    """From now on `plugin` is named for what comes out of a top-level module."""
    _plugins[module] = plugin


def plugin_of(entry: Any) -> str:
    """The plugin that defines a class or function, or the class of an object; "" where none does."""
    while isinstance(entry, functools.partial):
        entry = entry.func
    return _of(getattr(entry if hasattr(entry, "__qualname__") else type(entry), "__module__", ""))


def named(entry: Any) -> str:
    """The beginning of a message about an entry: `plugin my_net.py: `, "" for one of ours."""
    plugin = plugin_of(entry)
    return f"plugin {plugin}: " if plugin else ""


def blamed(error: BaseException) -> str:
    """One line with plugin, line and remedy for an exception that passed through the code of a plugin; "" for others,
    and for those that tell a mistake already."""
    if isinstance(error, UserError | NumericalError):
        return ""
    trace, found = error.__traceback__, None
    while trace is not None:
        if plugin := _of(str(trace.tb_frame.f_globals.get("__name__", ""))):
            found = plugin, trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next
    if found is None:
        return ""
    plugin, frame, line = found
    return (
        f"plugin {plugin}, line {line}{_in_package(frame, plugin)}: {told(error)}; "
        f"`transkd plugin check {plugin.partition(' ')[0]}` tells more"
    )


@contextlib.contextmanager
def blaming() -> Iterator[None]:
    """Raise UserError, as `blamed` words it, for what the code of a plugin raises. Other errors stay, and those of a
    machine without memory or disk."""
    try:
        yield
    except Exception as error:
        short = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if isinstance(error, MemoryError) or short or not (said := blamed(error)):
            raise
        raise UserError(said) from error


def place(error: BaseException, file: str) -> str:
    """`, line 7` where an exception passed through a file, at its innermost line."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f", line {error.lineno}"
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f", line {lines[-1]}" if lines else ""


def told(error: BaseException) -> str:
    """What an exception says, with a remedy for an import that a plugin cannot make."""
    said = message_of(error)
    if isinstance(error, ImportError):
        return f"{said}; a plugin is one file: install what it imports, or write it into the file"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _of(module: str) -> str:
    return _plugins.get(module.partition(".")[0], "")


def _in_package(frame: FrameType, plugin: str) -> str:
    """The file of a frame, where the plugin is no file itself."""
    file = frame.f_code.co_filename
    return "" if file == plugin else f" of {Path(file).name}"
