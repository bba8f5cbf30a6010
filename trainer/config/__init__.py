"""The config of a run: its schema, the errors users see, and plain data. pydantic and PyYAML only, no torch."""

from trainer.config.errors import NumericalError, UserError, explain, located, unknown
from trainer.config.identity import RunIds, Sources, data_key, identity, weight_names
from trainer.config.plain import digest, override, read_yaml, removable
from trainer.config.schema import (
    DataConfig,
    EvalConfig,
    ModelConfig,
    Normalize,
    Number,
    OptimConfig,
    Strict,
    TeacherConfig,
    TeacherRecipe,
    Term,
    TrainConfig,
    parse,
    teacher_run,
)
from trainer.config.yaml_text import parse_yaml

NUMERICS_VERSION = 2
"""Raised by hand when a code change alters an unchanged config's numbers (tests/trainer/training/test_golden_curve.py).
"""

IGNORE = 255
"""Label value that losses and metrics ignore."""

__all__ = [
    "IGNORE",
    "NUMERICS_VERSION",
    "DataConfig",
    "EvalConfig",
    "ModelConfig",
    "Normalize",
    "Number",
    "NumericalError",
    "OptimConfig",
    "RunIds",
    "Sources",
    "Strict",
    "TeacherConfig",
    "TeacherRecipe",
    "Term",
    "TrainConfig",
    "UserError",
    "data_key",
    "digest",
    "explain",
    "identity",
    "located",
    "override",
    "parse",
    "parse_yaml",
    "read_yaml",
    "removable",
    "teacher_run",
    "unknown",
    "weight_names",
]
