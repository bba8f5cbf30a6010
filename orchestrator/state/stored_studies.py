"""Stored studies: the studies that a store has run, by name, from the YAML that each launch records in the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ablations.study.schema import Study, packaged, read, source
from orchestrator.store.ledger import Ledger
from trainer.config import UserError, unknown

BUNDLE_SUFFIX = ".tar.gz"
"""Of the archives that `transkd bundle` writes."""


def stored_studies(ledger: Ledger) -> dict[str, str]:
    """Name -> YAML as of its last launch; the study that was launched last comes last."""
    found: dict[str, str] = {}
    for event in ledger.events():
        if event["event"] == "study" and event.keys() >= {"study", "text"}:
            found.pop(event["study"], None)
            found[event["study"]] = event["text"]
    return found


def recorded_plugins(name: str, ledger: Ledger) -> list[dict[str, Any]]:
    """The plugins of a study's last launch, whole."""
    launches = [event for event in ledger.events() if event["event"] == "study" and event.get("study") == name]
    return launches[-1].get("plugins", []) if launches else []


class Source(NamedTuple):
    """The YAML of a study, where it stands, and whether that is a store, whose names older rules may have allowed."""

    text: str
    where: str
    recorded: bool = False
    folder: Path = Path()
    """Where its plugins are files, unless it is recorded."""
    plugins: Sequence[Mapping[str, Any]] | None = None
    """The plugins of its last launch, where it is recorded."""

    def read(self) -> Study:
        """The study. Raises UserError where it is wrong."""
        return read(self.text, self.where, recorded=self.recorded, folder=self.folder, plugins=self.plugins)


def study_source(name: str, ledger: Ledger) -> Source:
    """The source of a study: a file, a packaged study, or one of the store. Raises UserError where there is none."""
    path = Path(name)
    if name.endswith(BUNDLE_SUFFIX):
        raise UserError(
            f"{name} is a bundle, which `transkd report`, `status` and `explain` read; give a study's name or YAML "
            "file, such as study.yaml in the bundle"
        )
    if name in packaged() or path.suffix in (".yaml", ".yml") or (path.exists() and not path.is_dir()):
        return Source(*source(name), folder=path.parent)
    stored = stored_studies(ledger)
    if name not in stored:
        raise unknown("study", name, [*packaged(), *stored])
    plugins = recorded_plugins(name, ledger)
    return Source(stored[name], f"{name} in {ledger.path.parent}", recorded=True, plugins=plugins)


def load_study(name: str, ledger: Ledger) -> Study:
    """The study that `study_source` finds. Raises UserError where there is none, or it is wrong."""
    return study_source(name, ledger).read()
