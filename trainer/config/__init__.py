"""The config of a run: its schema, the errors users see, and plain data. pydantic and PyYAML only, no torch."""

from trainer.config.cohort import CohortKey, check_cohort, cohort_key
from trainer.config.data import DataConfig
from trainer.config.errors import NumericalError, UnreachableError, UserError, explain, located, shown, unknown
from trainer.config.evaluation import EvalConfig
from trainer.config.extras import missing, missing_in, require
from trainer.config.fields import (
    MOST,
    Count,
    FilePath,
    Integer,
    Name,
    Normalize,
    Number,
    Options,
    Precision,
    Scale,
    Seed,
    Strict,
    is_recorded,
    plain_scale,
)
from trainer.config.identity import RunIds, Sources, data_key, identity, splits_read, weight_names
from trainer.config.masking import masked
from trainer.config.named_steps import step_names
from trainer.config.optim import OptimConfig
from trainer.config.plain import differences, digest, override, read_text, read_yaml, refuse_secrets, removable
from trainer.config.plugin import Plugin
from trainer.config.plugin_packages import installed
from trainer.config.plugin_sources import with_plugins
from trainer.config.recipes import recipe_names, with_recipe
from trainer.config.schema import (
    ModelConfig,
    TeacherConfig,
    TeacherRecipe,
    Term,
    TrainConfig,
    parse,
    teacher_run,
)
from trainer.config.text import LONGEST_NAME, check_name, counted, message_of, printable
from trainer.config.yaml_text import parse_argument, parse_documents, parse_yaml

NUMERICS_VERSION = 2
"""Raised by hand when a code change alters an unchanged config's numbers (tests/trainer/training/test_golden_curve.py).
"""

IGNORE = 255
"""Label value that losses and metrics ignore."""

__all__ = [
    "IGNORE",
    "LONGEST_NAME",
    "MOST",
    "NUMERICS_VERSION",
    "CohortKey",
    "Count",
    "DataConfig",
    "EvalConfig",
    "FilePath",
    "Integer",
    "ModelConfig",
    "Name",
    "Normalize",
    "Number",
    "NumericalError",
    "OptimConfig",
    "Options",
    "Plugin",
    "Precision",
    "RunIds",
    "Scale",
    "Seed",
    "Sources",
    "Strict",
    "TeacherConfig",
    "TeacherRecipe",
    "Term",
    "TrainConfig",
    "UnreachableError",
    "UserError",
    "check_cohort",
    "check_name",
    "cohort_key",
    "counted",
    "data_key",
    "differences",
    "digest",
    "explain",
    "identity",
    "installed",
    "is_recorded",
    "located",
    "masked",
    "message_of",
    "missing",
    "missing_in",
    "override",
    "parse",
    "parse_argument",
    "parse_documents",
    "parse_yaml",
    "plain_scale",
    "printable",
    "read_text",
    "read_yaml",
    "recipe_names",
    "refuse_secrets",
    "removable",
    "require",
    "shown",
    "splits_read",
    "step_names",
    "teacher_run",
    "unknown",
    "weight_names",
    "with_plugins",
    "with_recipe",
]
