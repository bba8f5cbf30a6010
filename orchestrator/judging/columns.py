"""Columns: which one holds the arms, the seeds and the metric, as given or guessed from their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.judging.frame import Frame
from orchestrator.judging.numbers import is_empty, number_of
from trainer.config import UserError, unknown

ARM = (
    *("arm", "method", "model", "algorithm", "algo", "variant", "approach", "distiller", "system", "config"),
    *("experiment", "group", "name", "run_name"),
)
SEED = ("seed", "random_seed", "rng_seed", "random_state", "fold", "repeat", "replicate", "repetition")
METRIC = (
    *("score", "miou", "mean_iou", "iou", "dice", "accuracy", "acc", "top1", "f1", "auc", "auroc", "map", "bleu"),
    *("psnr", "ssim", "reward", "return", "value", "metric", "result", "test_score", "val_score"),
    *("loss", "error", "err", "rmse", "mae", "mse", "nll", "perplexity", "ppl", "fid", "wer", "cer", "lpips"),
)
LESS = (
    "loss",
    "error",
    "err",
    "rmse",
    "mae",
    "mse",
    "nll",
    "perplexity",
    "ppl",
    "fid",
    "wer",
    "cer",
    "lpips",
    "latency",
    *("time", "runtime", "seconds", "ece", "brier"),
)
"""Words in the name of a metric of which less is better."""
SUMMARIES = (
    *("mean", "average", "avg", "median", "std", "sd", "stdev", "stddev", "stderr", "sem", "var", "min", "max", "sum"),
    *("count", "diff", "difference", "delta"),
)
"""Rows and columns of a spreadsheet that are computed from scores."""
NO_SEEDS = ("nan", "none", "null", "na", "n/a", "-", "?")
"""What programs write for a seed that there is not."""
NO_ARMS = (
    *SUMMARIES,
    *("epoch", "epochs", "step", "_step", "steps", "iteration", "iterations", "time", "runtime", "seconds"),
)
"""Columns of numbers beside those of the arms."""
PREFIXES = re.compile(r"^(params|user_attrs|config|summary)_")
"""Before a name in Optuna's trials_dataframe."""


def check_given(frame: Frame, given: dict[str, str | None]) -> None:
    """Raise UserError for an option (`--arm`) that names no column, or the column of another."""
    named: dict[str, str] = {}
    for option, name in given.items():
        if name is None:
            continue
        if name not in frame.columns:
            raise UserError(f"{option}: {frame.source}: {unknown('column', name, frame.columns)}")
        if name in named:
            raise UserError(f"{named[name]} and {option} both name the column {name}; name two columns")
        named[name] = option


def seed_column(frame: Frame, given: str | None, taken: Sequence[str | None] = ()) -> str | None:
    """The column of seeds, of all but those `taken` for something else; None where no name is of one."""
    return given or _named(frame, SEED, [name for name in frame.columns if name not in taken])


def arm_column(frame: Frame, given: str | None, taken: Sequence[str | None] = ()) -> str | None:
    """The column of arms, of all but those `taken`: by its name, and because some arm has several rows; None where
    there is none."""
    free = [name for name, cells in frame.columns.items() if name not in taken and _repeats(cells)]
    return given or _named(frame, ARM, free)


def label_column(frame: Frame, given: str | None, others: Iterable[str]) -> str | None:
    """The column of arms, of which each has one row: by its name, of all columns but these; None where there is
    none."""
    out = set(others)
    return given or _named(frame, ARM, [name for name in frame.columns if name not in out])


def _repeats(cells: Sequence[Any]) -> bool:
    filled = [str(cell) for cell in cells if not is_empty(cell)]
    return len(set(filled)) < len(filled)


def metric_column(frame: Frame, given: str | None, taken: Sequence[str | None]) -> str | None:
    """The column of scores: by its name, else the only one with numbers; None where there are none or several."""
    free = [name for name in frame.columns if name not in taken]
    if found := given or _named(frame, METRIC, free):
        return found
    numbers = [name for name in free if is_numeric(frame.columns[name])]
    return numbers[0] if len(numbers) == 1 else None


def is_numeric(cells: Sequence[Any]) -> bool:
    """Whether a column has numbers and nothing else."""
    filled = [cell for cell in cells if not is_empty(cell)]
    return bool(filled) and all(number_of(cell) is not None for cell in filled)


def less_is_better(metric: str) -> bool:
    """Whether the name of a metric says so."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", metric)  # valLoss
    return bool(set(re.split(r"[^a-z0-9]+", words.lower())) & set(LESS))


def simple(name: str) -> str:
    """A column's name without what stands before it: `val/mIoU`, `params_mIoU` and `metrics.mIoU` are `miou`."""
    last = re.split(r"[/.]", name.strip().lower())[-1]
    return PREFIXES.sub("", re.sub(r"[\s-]+", "_", last))


def _named(frame: Frame, names: Sequence[str], columns: Iterable[str]) -> str | None:
    """Of these columns the one with the first of the names; the shortest of several (`miou` before `val/miou`). Raises
    UserError where several of equal depth have it."""
    for name in names:
        found = [column for column in columns if simple(column) == name]
        least = min(map(_depth, found), default=0)
        nearest = [column for column in found if _depth(column) == least]
        if len(nearest) > 1:
            raise UserError(
                f"{frame.source}: {' and '.join(nearest)} could each be the {name}; name the column by --arm, "
                "--seed or --metric"
            )
        if nearest:
            return nearest[0]
    return None


def _depth(column: str) -> int:
    return len(re.split(r"[/.]", column))
