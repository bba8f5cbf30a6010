"""Main effects and interactions from the paired cells of a grid, whole or with holes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablations.statistics.factor_effects import MAX_EFFECTS, effects_of
from ablations.statistics.outcome import Outcome
from ablations.statistics.verdicts import study_verdicts
from ablations.study.plan import expand
from ablations.table.arms import build_table
from ablations.table.effects import effects_table
from ablations.table.text import to_plain

TWO = "factors: {distill.csf: [null, {}], distill.pea: [null, {}]}\nseeds: 8\n"
LEVELS = "factors: {distill.csf: [null, {}], optim.lr: [1.0e-3, 2.0e-3, 3.0e-3]}\n"
CONDITIONAL = "factors: {distill.csf: [null, {}], distill.csf.weight: [0.1, 1.0], distill.pea: [null, {}]}\n"
HOLES = """
factors: {distill.csf: [null, {}], distill.pea: [null, {}], distill.pea_gl: [null, {}]}
excludes: [[distill.pea, distill.pea_gl]]
requires: {distill.pea_gl: [distill.csf]}
"""


def _cell(run):
    """50, 3 more with csf, 1 more with pea, 2 less where both are, and a noise of the seed that all cells share."""
    csf, pea = "csf" in run.config.distill, "pea" in run.config.distill
    return 50.0 + 3.0 * csf + 1.0 * pea - 2.0 * (csf and pea) + 0.25 * (run.seed % 3)


def _outcomes(runs, score=_cell):
    return {run.key: Outcome("finished", {"val/miou": score(run)}) for run in runs}


def _scores(runs, score=_cell):
    found = {}
    for run in runs:
        if run.role == "arm":
            found.setdefault(run.arm, {})[run.seed] = score(run)
    return found


def test_effects_are_the_textbooks(study):
    written = study(TWO)
    scores = _scores(expand(written))
    found = {effect.name: np.array([*effect.by_seed(scores).values()]) for effect in effects_of(written).effects}
    assert list(found) == ["csf=on", "pea=on", "csf=on × pea=on"]
    # csf: 3 alone and 3 - 2 beside pea, so 2 on average; pea: 1 and -1, so 0.
    assert found["csf=on"] == pytest.approx(np.full(8, 2.0))
    assert found["pea=on"] == pytest.approx(np.zeros(8))
    assert found["csf=on × pea=on"] == pytest.approx(np.full(8, -2.0))


def test_each_level_is_held_against_the_first(study):
    effects, missing = effects_of(study(LEVELS))
    assert [(effect.name, effect.against) for effect in effects] == [
        ("csf=on", "csf=off"),
        ("lr=0.002", "lr=0.001"),
        ("lr=0.003", "lr=0.001"),
        ("csf=on × lr=0.002", ""),
        ("csf=on × lr=0.003", ""),
    ]
    assert missing == []
    assert effects[2].weights == {
        "csf=off, lr=0.001": -0.5,
        "csf=off, lr=0.003": 0.5,
        "csf=on, lr=0.001": -0.5,
        "csf=on, lr=0.003": 0.5,
    }


def test_a_factor_that_applies_beside_another_only_has_its_effect_there(study):
    effects, missing = effects_of(study(CONDITIONAL))
    names = {effect.name: effect for effect in effects}
    assert (names["csf.weight=1"].points, names["csf.weight=1"].of) == (2, 4)
    assert all("csf=on" in arm for arm in names["csf.weight=1"].weights)
    # two points are one comparison without csf, whose weight is nothing there: half of pea's effect is beside no csf
    assert (names["pea=on"].points, names["pea=on"].of) == (4, 4)
    assert names["pea=on"].weights == {
        "csf=off, pea=off": -0.5,
        "csf=off, pea=on": 0.5,
        "csf=on, csf.weight=0.1, pea=off": -0.25,
        "csf=on, csf.weight=0.1, pea=on": 0.25,
        "csf=on, csf.weight=1, pea=off": -0.25,
        "csf=on, csf.weight=1, pea=on": 0.25,
    }
    assert missing == ["not estimable: csf=on × csf.weight=1: one factor applies at only one level of the other"]


def test_an_effect_is_measured_where_both_levels_were_allowed(study):
    written = study(HOLES)
    effects, missing = effects_of(written)
    names = {effect.name: effect for effect in effects}
    assert names["pea_gl=on"].weights == {"csf=on, pea=off, pea_gl=off": -1.0, "csf=on, pea=off, pea_gl=on": 1.0}
    assert {name: (effect.points, effect.of) for name, effect in names.items()} == {
        "csf=on": (2, 4),
        "pea=on": (2, 4),
        "pea_gl=on": (1, 4),
        "csf=on × pea=on": (1, 2),
    }
    why = "requires or excludes leave out a part of every comparison"
    assert missing == [f"not estimable: {both}: {why}" for both in ("csf=on × pea_gl=on", "pea=on × pea_gl=on")]


def test_one_factor_has_its_table_of_arms_and_no_effects(study):
    for one in (
        "factors: {optim.lr: [0.1, 0.2]}",
        "variants: {a: {}}",
        "factors: {optim.lr: [0.1], distill.csf: [null, {}]}",
    ):
        assert effects_of(study(one)) == ([], [])


def test_a_family_nobody_could_read_keeps_its_main_effects(study):
    rates = ", ".join(f"{i}.0e-5" for i in range(1, MAX_EFFECTS))
    effects, missing = effects_of(study(f"factors: {{optim.lr: [{rates}], distill.csf: [null, {{}}]}}"))
    assert len(effects) == MAX_EFFECTS - 1
    assert missing == [
        f"{MAX_EFFECTS - 2} interactions are left out: with them there would be over {MAX_EFFECTS} effects"
    ]


@pytest.mark.parametrize(("rates", "kept"), [(20, MAX_EFFECTS), (21, 22)])
def test_effects_up_to_the_most_keep_their_interactions(study, rates, kept):
    """Of csf, pea and a rate with n more levels: 2 + n effects, and 1 + 2 n interactions."""
    values = ", ".join(f"{i}.0e-5" for i in range(1, rates + 1))
    effects, _ = effects_of(
        study(f"factors: {{distill.csf: [null, {{}}], distill.pea: [null, {{}}], optim.lr: [{values}]}}")
    )
    assert len(effects) == kept


def test_the_table_of_effects_stands_under_the_table_of_arms(study):
    written = study(TWO)
    runs = expand(written)
    (table,) = build_table(written, runs, _outcomes(runs)).more
    assert to_plain(table) == (
        "effects   of the factors of written on val mIoU\n"
        "effect            vs        points   n   difference [interval]   verdict\n"
        "csf=on            csf=off      all   8         +2.0 [2.0, 2.0]   better\n"
        "pea=on            pea=off      all   8         +0.0 [0.0, 0.0]   undecided\n"
        "csf=on × pea=on                all   8       -2.0 [-2.0, -2.0]   worse\n"
        " A × B: interaction of A and B\n"
    )
    assert table.rows[2].values["difference"] == pytest.approx(-2.0)


def test_a_seed_without_one_of_its_cells_takes_no_part(study):
    written = study(TWO)
    runs = expand(written)
    outcomes = _outcomes(runs)
    lost = next(run for run in runs if (run.arm, run.seed) == ("csf=on, pea=off", 2))
    outcomes[lost.key] = Outcome("failed", reason="a bug")
    (table,) = effects_table(written, runs, outcomes)
    assert [row.values["pairs"] for row in table.rows] == [7, 7, 7]
    del outcomes[lost.key]
    (table,) = effects_table(written, runs, outcomes)
    assert {row.values["verdict"] for row in table.rows} == {"not yet"}


def test_an_effect_of_cells_without_any_score_has_no_seed(study):
    written = study(TWO)
    scores = _scores(expand(written))
    del scores["csf=off, pea=off"]
    assert [len(effect.by_seed(scores)) for effect in effects_of(written).effects] == [0, 0, 0]


def test_effects_of_seeds_that_were_added_for_other_tests_have_no_verdict(study):
    written = study(TWO.replace("seeds: 8", "seeds: {looks: [6, 8]}"))
    runs = expand(written)
    (table,) = build_table(written, runs, _outcomes(runs)).more
    assert {row.values["verdict"] for row in table.rows} == {""}
    assert any(note.startswith("no verdicts on effects: seeds were added until") for note in table.notes)


@pytest.mark.slow
def test_false_verdicts_stay_below_five_percent_a_study(study):
    """Cells that are all alike, seeds of heavy tails: studies with any arm or effect called better or worse."""
    written = study(TWO)
    runs = expand(written)
    rng = np.random.default_rng(1996)
    studies, false, of_effects = 600, 0, 0
    for _ in range(studies):
        outcomes = {run.key: Outcome("finished", {"val/miou": rng.standard_t(3)}) for run in runs}
        arms = [one.verdict for one in study_verdicts(written, runs, outcomes).contrasts]
        (table,) = effects_table(written, runs, outcomes)
        effects = [row.values["verdict"] for row in table.rows]
        false += bool({"better", "worse"} & {*arms, *effects})
        of_effects += bool({"better", "worse"} & {*effects})
    assert 0 < of_effects < false <= studies * 0.05 + 3 * math.sqrt(studies * 0.05 * 0.95)
