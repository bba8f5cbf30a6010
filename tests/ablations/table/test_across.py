"""One table of several studies: the verdict over all, what single studies say, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablations.statistics.across import Part, across_verdicts, common_contrasts
from ablations.statistics.holm import holm
from ablations.statistics.outcome import Outcome
from ablations.statistics.stratified import stratified_p
from ablations.study.plan import expand
from ablations.table.across import across_table
from ablations.table.latex import to_latex
from ablations.table.text import to_plain
from trainer.config import UserError

ARMS = """
variants: {alone: {distill: {}}, Base: {}, Other: {optim.epochs: 12}}
contrasts: [[Base, alone], [Other, Base]]
"""


def part(study, gains):
    """A study whose arms score 50 and their gain, with a wobble by seed; those that score NaN have failed."""
    runs = expand(study)

    def outcome(run):
        score = 50.0 + gains.get(run.arm, 0.0) + 0.1 * math.sin(run.seed * (2 + len(run.arm)))
        return Outcome("finished", {"val/miou": score}) if math.isfinite(score) else Outcome("failed", {}, "nan")

    return Part(study, runs, {run.key: outcome(run) for run in runs})


@pytest.fixture
def three(study):
    """Base helps in all; Other helps in the first two and harms in the third."""
    return [
        part(study(f"{ARMS}seeds: 8", "city"), {"Base": 2.0, "Other": 3.0}),
        part(study(f"{ARMS}seeds: 8", "road"), {"Base": 1.0, "Other": 2.0}),
        part(study(f"{ARMS}seeds: 7", "rooms"), {"Base": 3.0, "Other": 2.0}),
    ]


def test_the_table_of_three_studies(three):
    table = across_table(three)
    assert to_plain(table).splitlines()[:7] == [
        "city + road + rooms   val mIoU (full protocol), last epoch, 3 studies, family-wise 5 %",
        "arm           city         road        rooms   mIoU    n   vs      difference [interval]   verdict   by study",
        "alone   50.0 ± 0.1   50.0 ± 0.1   50.0 ± 0.1   50.0   23   -",
        "Base    51.9 ± 0.0   50.9 ± 0.0   52.9 ± 0.0   51.9   23   alone         +1.9 [1.5, 2.3]   better    "
        "better on all 3",
        "Other   53.0 ± 0.1   52.0 ± 0.1   52.0 ± 0.1   52.3   23   Base        +0.4 [0.003, 0.8]   better    "
        "better on 2 of 3; worse on rooms",
        " unequal studies: 1 contrast better in one and worse in another",
        " mIoU and verdict: over all studies, of which each weighs the same",
    ]
    (each, described) = table.more
    assert [row.cells[:2] for row in each.rows][2:4] == [("Base", "rooms"), ("Other", "city")]
    assert [row.cells[-1] for row in each.rows] == ["better"] * 5 + ["worse"]
    assert [row.cells[0] for row in described.rows] == ["city", "road", "rooms"]
    assert "\\textbf{52.3}" in to_latex(table)
    assert any("rooms: The results are conditional on one teacher" in text for text in table.explained)


def test_the_verdicts_are_holms_over_the_contrasts_of_the_stratified_test(three):
    claims = across_verdicts(three, [("Base", "alone"), ("Other", "Base")])
    plain = [stratified_p([np.array(one.found.differences) for one in claim.studies]) for claim in claims]
    assert [claim.p for claim in claims] == pytest.approx(holm(plain)[0])
    assert claims[0].difference == pytest.approx(2.0, abs=0.1)
    assert claims[0].observations == 23


def test_equivalent_means_equivalent_in_every_study(study):
    rest = f"{ARMS}seeds: 8\nmargin: 0.5"
    near = part(study(rest, "near"), {"Base": 0.1, "Other": 0.1})
    also = part(study(rest, "also"), {"Base": -0.1, "Other": 0.0})
    away = part(study(rest, "away"), {"Base": 0.8, "Other": 0.9})
    both, not_all = (
        [claim.verdict for claim in across_verdicts(p, near.study.pairs)] for p in ([near, also], [near, away])
    )
    assert both == ["equivalent", "equivalent"]
    assert not_all == ["better", "equivalent"]
    without = part(study(f"{ARMS}seeds: 8", "without"), {"Base": 0.1, "Other": 0.1})
    assert "equivalent" not in [claim.verdict for claim in across_verdicts([near, without], near.study.pairs)]


def test_there_is_no_verdict_before_all_studies_have_ended(three):
    unfinished = three[0]._replace(outcomes=dict(list(three[0].outcomes.items())[:-1]))
    table = across_table([unfinished, *three[1:]])
    rows = {row.values["arm"]: row for row in table.rows}
    assert rows["Base"].values["verdict"] == "better"
    assert rows["Other"].values["verdict"] == "not yet"
    assert rows["Other"].cells[5] == "22/23"
    assert rows["Other"].cells[-1] == "not yet on city; better on road; worse on rooms"
    assert table.notes[0] == "not finished: runs of city"


def test_a_study_whose_pairs_all_failed_decides_nothing(study):
    good = part(study(f"{ARMS}seeds: 8", "good"), {"Base": 2.0, "Other": 3.0})
    lost = part(study(f"{ARMS}seeds: 8", "lost"), {"Base": math.nan})
    table = across_table([good, lost])
    assert [row.values.get("verdict") for row in table.rows] == [None, "undecided", "undecided"]
    assert [row.cells[5] for row in table.rows[1:]] == ["alone", "Base"]
    assert [row.cells[3:5] for row in table.rows[1:]] == [("-", "8/16"), ("51.5", "16")]


def test_too_few_pairs_are_named(study):
    parts = [part(study(f"{ARMS}seeds: 2", name), {"Base": 2.0}) for name in ("one", "two")]
    assert across_table(parts).notes[0] == "n too small: 4 pairs cannot decide 2 contrasts at 5 %, 7 could"


def test_common_leaves_out_what_not_all_studies_have(study, three):
    less = part(study("variants: {alone: {distill: {}}, Base: {}}\nseeds: 8", "less"), {"Base": 1.0})
    table = across_table([three[0], less], common=True)
    assert [row.values["arm"] for row in table.rows] == ["alone", "Base"]
    assert "city: left out as not all studies have it: Other against Base." in table.explained


def test_arms_that_change_other_things_are_named(study, three):
    other = study(ARMS.replace("12", "13") + "seeds: 8", "other")
    table = across_table([three[0], part(other, {"Base": 1.0})])
    said = "Unequal: Other changes optim.epochs: 13 in other and optim.epochs: 12 in city."
    assert said in table.explained


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (
            "variants: {alone: {distill: {}}, Base: {}}\nseeds: 8",
            "studies must have the same contrasts, but two lacks Other; --common compares the 1 contrast that all have",
        ),
        (
            "variants: {alone: {distill: {}}, Base: {}, Other: {optim.epochs: 12}}\nseeds: 8",
            "one does not compare Other against alone; two does not compare Other against Base; --common",
        ),
        (
            "variants: {A: {}, B: {distill: {}}}\nseeds: 8",
            "one lacks B, A; two lacks Base, alone, Other; none is in all",
        ),
        (ARMS + "seeds: 8\nmetric: val/iou/road", "two has the metric val/iou/road and one val/miou"),
        (ARMS + "seeds: {looks: [6, 8]}", "two adds seeds until it is decided"),
        ("search: {trials: 4, space: {optim.lr: {log: [1.0e-4, 1.0e-2]}}}", "two has no contrasts of arms"),
    ],
)
def test_studies_that_do_not_match_are_refused(study, rest, said):
    one = study(ARMS + "seeds: 8", "one")
    two = study(rest, "two", data=", select: 0.25" if "search" in rest else "")
    with pytest.raises(UserError, match=f"^--across: .*{said}"):
        common_contrasts([one, two])


def test_another_protocol_one_study_and_one_twice_are_refused(study):
    one = study(ARMS + "seeds: 8", "one")
    paper = study(ARMS + "seeds: 8", "paper", more="eval: {protocols: [paper, full]}")
    with pytest.raises(UserError, match="paper has the protocol paper and one full, and no table mixes them"):
        common_contrasts([one, paper])
    with pytest.raises(UserError, match="compares two studies or more, but got one; name another"):
        common_contrasts([one])
    with pytest.raises(UserError, match="named once, but got one more often"):
        common_contrasts([one, one])
    with pytest.raises(UserError, match="none is in all of them"):
        common_contrasts([one, study("variants: {A: {}, B: {distill: {}}}\nseeds: 8", "two")], common=True)
