"""Judged: the table of anybody's scores, from a frame and the user's choices."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.statistics.measured import Measured
from ablations.table.judged import judged_table
from ablations.table.shape import Table
from orchestrator.judging.columns import check_given
from orchestrator.judging.frame import Frame
from orchestrator.judging.rows import long_rows
from orchestrator.judging.scores import Choices, measured_of


@dataclass(frozen=True)
class Judged:
    """What was measured, the table, and how the scores were read, in sentences."""

    name: str
    measured: Measured
    table: Table
    remarks: tuple[str, ...]


def judged(name: str, frame: Frame, choices: Choices) -> Judged:
    """The verdicts on the scores of a frame. Raises UserError where it cannot be read or compared."""
    check_given(frame, {"--arm": choices.arm, "--seed": choices.seed, "--metric": choices.metric})
    rows = long_rows(frame, choices.arm, choices.seed, choices.metric)
    measured, remarks = measured_of(rows, choices, frame)
    return Judged(name, measured, judged_table(name, measured, remarks, rows.pairs), remarks)
