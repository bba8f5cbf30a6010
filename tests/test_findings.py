"""The page of findings says what its runs say: rows and differences of the table are those of docs/findings.csv."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from statistics import mean, stdev

from ablations.study.plan import expand
from ablations.study.schema import load

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "findings.md").read_text(encoding="utf-8")
RUNS = list(csv.DictReader((DOCS / "findings.csv").open(encoding="utf-8")))


def scores() -> dict[str, list[float]]:
    """Arm -> the scores of its seeds, in their order."""
    found: dict[str, list[float]] = {}
    for run in sorted(RUNS, key=lambda run: int(run["seed"])):
        found.setdefault(run["arm"], []).append(float(run["score"]))
    return found


def test_the_runs_are_those_of_the_study_and_have_finished():
    assert {(run["arm"], int(run["seed"])) for run in RUNS} == {(r.arm, r.seed) for r in expand(load("camvid_paper"))}
    assert {run["status"] for run in RUNS} == {"finished"}


def test_each_row_and_each_difference_of_the_table_follows_from_the_runs():
    found, (table,) = scores(), re.findall(r"```\n(camvid_paper .*?)```", PAGE, re.S)
    for arm, own in found.items():
        said = f"{mean(own):.1f} ± {stdev(own):.1f}" if len(own) > 1 else f"{own[0]:.1f}"
        assert re.search(rf"^{re.escape(arm)} +{len(own)} +{re.escape(said)} ", table, re.M), arm
    arm, seen = "", []
    for line in table.splitlines()[3:]:
        name, versus, difference = (line[a:b].strip() for a, b in ((0, 20), (40, 61), (61, 71)))
        arm = name or arm
        if versus in found:
            pairs = [mine - theirs for mine, theirs in zip(found[arm], found[versus], strict=True)]
            assert f"{mean(pairs):+.1f}" == difference.split()[0], line
            seen.append([arm, versus])
    assert seen == [list(each) for each in load("camvid_paper").contrasts]
