"""The YAML of a study that was made in Python, or read and changed there."""

from __future__ import annotations

from typing import Any

import yaml

from ablations.study.schema import Study, read
from ablations.study.search import Dimension
from trainer.config import UserError


def as_yaml(study: Study) -> str:
    """The text from which `read` makes this study. Raises UserError where there is none: of a study with plugins, whose
    files stand beside its own."""
    plain = study.model_dump(mode="json", exclude_unset=True)
    if study.published is not None:
        plain["published"] |= plain["published"].pop("arms", {})
    for kind, searched in (("search", study.search), ("tune_each", study.tune_each)):
        if searched is not None:
            plain[kind]["space"] = {path: _short(dimension) for path, dimension in searched.space.items()}
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    if study.plugins or read(text, study.name) != study:
        raise UserError(f"{study.name}: this study cannot be written as YAML; give the path of its file instead")
    return text


def _short(dimension: Dimension) -> dict[str, Any]:
    if dimension.kind == "choice":
        return {"choice": dimension.choices}
    return {dimension.kind: [dimension.low, dimension.high]}
