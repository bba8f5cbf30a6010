"""The page of findings says what its runs say: rows and differences of its tables are those of its two CSV files."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from statistics import mean, stdev

import pytest

from ablations.study.plan import expand
from ablations.study.schema import load

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "findings.md").read_text(encoding="utf-8")
FILES = {"camvid_paper": "findings.csv", "camvid_choices": "findings_choices.csv"}


def runs(study: str) -> list[dict[str, str]]:
    """The runs of a study, as the page links them."""
    with (DOCS / FILES[study]).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scores(study: str) -> dict[str, list[float]]:
    """Arm -> the scores of its seeds, in their order."""
    found: dict[str, list[float]] = {}
    for run in sorted(runs(study), key=lambda run: int(run["seed"])):
        found.setdefault(run["arm"], []).append(float(run["score"]))
    return found


@pytest.mark.parametrize("study", FILES)
def test_the_runs_are_those_of_the_study_and_have_finished(study: str):
    assert f"]({FILES[study]})" in PAGE
    assert {(run["arm"], int(run["seed"])) for run in runs(study)} == {(r.arm, r.seed) for r in expand(load(study))}
    assert {run["status"] for run in runs(study)} == {"finished"}


@pytest.mark.parametrize("study", FILES)
def test_each_row_and_each_difference_of_the_table_follows_from_the_runs(study: str):
    found, (table,) = scores(study), re.findall(rf"```\n({study} .*?)```", PAGE, re.S)
    for arm, own in found.items():
        said = f"{mean(own):.1f} ± {stdev(own):.1f}" if len(own) > 1 else f"{own[0]:.1f}"
        assert re.search(rf"^{re.escape(arm)} +{len(own)} +{re.escape(said)} ", table, re.M), arm
    header = table.splitlines()[1]
    arm, seen = "", []
    for line in table.splitlines()[3:]:
        arm = re.split(r" {2,}", line[: header.index("vs ")])[0] or arm
        versus, *rest = re.split(r" {2,}", line[header.index("vs ") :])
        if versus in found:
            pairs = [mine - theirs for mine, theirs in zip(found[arm], found[versus], strict=True)]
            assert f"{mean(pairs):+.1f}" == rest[0].split()[0], line
            seen.append([arm, versus])
    assert seen == [list(each) for each in load(study).contrasts]
