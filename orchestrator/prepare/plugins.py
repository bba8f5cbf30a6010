"""Make the names that a study's plugins define known in this process."""

from __future__ import annotations

import sys

from ablations.study.schema import Study
from trainer.config import located
from trainer.config.plugin_sources import record


def activate(study: Study) -> None:
    """Run the plugins of a study; those of another study are forgotten. Raises UserError for one that is wrong."""
    plugins = study.base.get("plugins", [])
    if not plugins and "trainer.plugins.load" not in sys.modules:  # which imports torch, seconds that a plan is spared
        return
    from trainer.plugins.load import activate as activate_all

    with located(study.name):
        activate_all(map(record, plugins))
