"""Make the names that a study's plugins define known in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ablations.study.schema import Study
from trainer.config import located
from trainer.config.plugin_sources import record


def activate(study: Study) -> None:
    """Run the plugins of a study; those of another study are forgotten. An installed package, which may be there for
    other studies, is run where this one has one of its names. Raises UserError for a plugin that is wrong."""
    listed = list(map(record, study.base.get("plugins", [])))
    words = set(_words({**study.model_dump(), "base": {**study.base, "plugins": ()}}))
    plugins = [
        plugin
        for plugin in listed
        if plugin.is_file or not words.isdisjoint(name for names in plugin.entries.values() for name in names)
    ]
    if not plugins and "trainer.plugins.load" not in sys.modules:  # which imports torch, seconds that a plan is spared
        return
    from trainer.plugins.load import activate as activate_all

    with located(study.name):
        activate_all(plugins)


def _words(value: Any) -> Iterator[str]:
    """The keys and texts in plain data, and the parts of those that are dotted paths."""
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, str):
        yield from value.split(".")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _words(item)
