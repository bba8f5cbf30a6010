"""Studies written in a test as YAML."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

from ablations.study.schema import Study, read

BASE = """
name: {name}
base:
  student: {{name: segformer_tiny}}
  teacher: {{name: segformer_mini, train: {{epochs: 3}}}}
  optim: {{lr: 1.0e-3, epochs: 9}}
  data: {{size: [96, 192]{data}}}
  distill: {{csf: {{}}, pea: {{options: {{stage_weights: [0.1, 0.1, 0.5, 1.0]}}}}}}{more}
"""


@pytest.fixture
def study() -> Callable[..., Study]:
    """study(rest of the YAML): a base with csf, pea and a teacher to train, and what the test adds below it; `more` is
    a line of the base."""

    def write(rest: str, name: str = "written", data: str = "", more: str = "") -> Study:
        return read(
            BASE.format(name=name, data=data, more=f"\n  {more}" if more else "") + textwrap.dedent(rest),
            "written.yaml",
        )

    return write
