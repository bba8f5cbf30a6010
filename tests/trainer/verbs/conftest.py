"""Configs as files, which the verbs read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Make = Callable[..., Any]


@pytest.fixture
def written(recipe: Make, tmp_path: Path) -> Callable[..., Path]:
    """written(distill, changes) -> a YAML file of the recipe."""

    def write(distill: dict[str, Any] | None = None, changes: dict[str, Any] | None = None) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(recipe(distill, changes)))
        return path

    return write
