"""Whose fault an exception or a wrong value is: the plugin's whose code it came out of. No plugin need be loaded."""

from __future__ import annotations

import contextlib
import errno
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.config.errors import NumericalError, UserError
from trainer.config.text import message_of

_plugins: dict[str, str] = {}
"""Module -> the name of the plugin that it belongs to, with all that is below it."""


def answers_for(module: str, plugin: str) -> None:
    """From now on `plugin` is named for what comes out of a module, and of those below it."""
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
    if (found := _innermost(error)) is None:
        return ""
    plugin, file, line = found
    return (
        f"plugin {plugin}, line {line}{_in_package(file, plugin)}: {told(error, plugin)}; "
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


def place(error: BaseException, plugin: str) -> str:
    """`, line 7` of a plugin where an exception passed through it, at the innermost one; of a package also its file."""
    if isinstance(error, SyntaxError) and error.filename and (error.filename == plugin or not _is_file(plugin)):
        return f", line {error.lineno}{_in_package(error.filename, plugin)}"
    found = _innermost(error, plugin)
    return f", line {found[2]}{_in_package(found[1], plugin)}" if found else ""


def told(error: BaseException, plugin: str) -> str:
    """What an exception says, with a remedy for an import that a plugin cannot make."""
    said = message_of(error)
    if not isinstance(error, ImportError):
        return f"{type(error).__name__}: {said}" if said else type(error).__name__
    if _is_file(plugin):
        return f"{said}; a plugin is one file: install what it imports, or write it into the file"
    return f"{said}; install what it imports, or correct the package"


def _innermost(error: BaseException, only: str = "") -> tuple[str, str, int] | None:
    """Plugin, file and line where an exception last passed through the code of a plugin."""
    trace, found = error.__traceback__, None
    while trace is not None:
        plugin = _of(str(trace.tb_frame.f_globals.get("__name__", "")))
        if plugin and only in ("", plugin):
            found = plugin, trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    return found


def _of(module: str) -> str:
    """The plugin of a module, or of the innermost package above it that a plugin answers for."""
    while module and module not in _plugins:
        module = module.rpartition(".")[0]
    return _plugins.get(module, "")


def _is_file(plugin: str) -> bool:
    return plugin.endswith(".py")


def _in_package(file: str, plugin: str) -> str:
    """The file of a line, where the plugin is no file itself."""
    return "" if _is_file(plugin) else f" of {Path(file).name}"
