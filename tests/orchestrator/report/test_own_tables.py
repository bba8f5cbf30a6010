"""`transkd judge` of the files that a report writes: the verdicts of the report."""

from __future__ import annotations

import pytest

from orchestrator.judging.frame import read_frame
from orchestrator.judging.judged import judged
from orchestrator.judging.scores import Choices
from orchestrator.report.files import write


def test_verdicts_that_the_scores_alone_do_not_give_are_named(synthetic, tmp_path):
    """Of a study with a margin, which its table does not hold."""
    report = synthetic("again").report
    write(report, tmp_path)
    found = judged("again", read_frame(tmp_path / "table.csv"), Choices())
    assert "unequal: the report of these scores has another verdict on 1 contrast" in found.table.notes
    assert "without PEA & CSF against Base <both> (equivalent, here worse)" in str(found.table.explained)
    found = judged("again", read_frame(tmp_path / "table.csv"), Choices(margin=0.3))
    assert "unequal" not in str(found.table.notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table.csv", "table.parquet", "runs.csv"])
def test_our_own_tables_have_the_verdicts_of_the_report(synthetic, tmp_path, name):
    report = synthetic("decided").report
    write(report, tmp_path)
    pairs = tuple(f"{arm}:{reference}" for arm, reference in report.study.pairs)
    contrasts = pairs if name == "runs.csv" else ()
    found = judged("decided", read_frame(tmp_path / name), Choices(contrasts=contrasts))
    numbers = (
        "reference",
        "verdict",
        "p",
        "level",
        "difference",
        "interval_low",
        "interval_high",
        "low",
        "high",
        "mean",
    )

    def compared(table):
        rows = (row.values for row in table.rows)
        return {row["arm"]: [row[name] for name in numbers] for row in rows if row.get("verdict")}

    theirs = compared(report.table)
    assert compared(found.table) == {arm: pytest.approx(values) for arm, values in theirs.items()}
    assert {values[1] for values in theirs.values()} >= {"better"}
    assert "teacher" in str(found.remarks)
