"""examine(): whether the entries of a plugin keep the contract that ours keep, told in plain words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from trainer.config import Plugin, UserError
from trainer.config.blame import place, told
from trainer.config.plugin import GROUPS
from trainer.contract import augmentations, datasets, distillers, models
from trainer.contract.datasets import made
from trainer.contract.distillers import Path
from trainer.contract.models import Network
from trainer.contract.promise import ContractError, UnusableError
from trainer.plugins.load import activate


class Finding(NamedTuple):
    """What came of one promise of an entry; `broken` is empty where it is kept."""

    entry: str
    promise: str
    broken: str
    unchecked: int = 0
    """How many further promises were not checked, as this one explains what would be found."""


CONTRACTS: dict[str, tuple[Callable[[str], Any], dict[str, Callable[[Any], None]]]] = {
    "DISTILLERS": (lambda name: contextlib.nullcontext(Path(name)), distillers.CHECKS),
    "MODELS": (lambda name: contextlib.nullcontext(Network(name)), models.CHECKS),
    "DATASETS": (made, datasets.CHECKS),
    "AUGMENTATIONS": (contextlib.nullcontext, augmentations.CHECKS),
}
"""By group: how an entry is opened by name, as a context manager, and what is checked of it."""


def examine(plugin: Plugin) -> Iterator[Finding]:
    """Check every entry of a plugin. Raises UserError where it cannot be loaded."""
    activate([plugin])
    for group, names in plugin.entries.items():
        opened, checks = CONTRACTS[group]
        for name in names:
            entry = f"{GROUPS[group].what} {name}"
            with contextlib.ExitStack() as stack:
                try:
                    subject = stack.enter_context(opened(name))
                except Exception as error:
                    yield Finding(entry, "can be made", _in_words(error, plugin))
                    continue
                yield from _findings(entry, subject, checks, plugin)


def _findings(entry: str, subject: Any, checks: dict[str, Callable[[Any], None]], plugin: Plugin) -> Iterator[Finding]:
    """The promises of an entry, up to one that it cannot be checked beyond."""
    for number, (promise, check) in enumerate(checks.items(), 1):
        try:
            check(subject)
        except Exception as error:
            ends = isinstance(error, UnusableError) or not isinstance(error, ContractError)
            yield Finding(entry, promise, _in_words(error, plugin), len(checks) - number if ends else 0)
            if ends:
                return
        else:
            yield Finding(entry, promise, "")


def _in_words(error: Exception, plugin: Plugin) -> str:
    """What a check found; of another exception its kind and the line of the plugin."""
    if isinstance(error, ContractError):
        return str(error)
    if isinstance(error, UserError):
        return str(error).removeprefix(f"plugin {plugin.name}: ")
    return f"it fails{place(error, plugin.name).replace(', line', ' in line')}: {told(error, plugin.name)}"
