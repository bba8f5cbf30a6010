"""What a plan says about what the design can decide, before it costs anything."""

from __future__ import annotations

import pytest

from ablations.statistics.design import design_lines

TWO = "variants: {alone: {distill: {}}, Base: {}, Other: {distill.pea: null}}\n"

SAID = {
    "three seeds": (
        "seeds: 3",
        ["this design cannot decide a difference: 3 seeds, 2 contrasts, the smallest adjusted p is 0.5; 7 seeds could"],
    ),
    "eight seeds": (
        "seeds: 8",
        [
            "8 seeds, 2 contrasts: the smallest adjusted p is 0.016, so a difference can be decided at 5 %",
            "80 % power to detect a difference of 1.4 standard deviations of the paired differences",
        ],
    ),
    "a margin": (
        "seeds: 3\nmargin: 0.5",
        [
            "this design cannot decide a difference: 3 seeds, 2 contrasts, the smallest adjusted p is 0.5; "
            "7 seeds could",
            "80 % power to show equivalence within ±0.5 points between equal arms, if the standard deviation of their "
            "paired differences is at most 0.14 points",
        ],
    ),
    "looks": (
        "seeds: {looks: [6, 8, 12]}",
        [
            "looks at 6, 8, 12 seeds, 2 contrasts: a difference can be decided from 8 seeds on at 5 %; earlier looks "
            "cannot reach significance",
            "80 % power to detect a difference of 1.0 standard deviations of the paired differences with all 12 seeds; "
            "slightly larger because of the looks",
        ],
    ),
    "looks and a margin": (
        "seeds: {looks: [6, 8]}\nmargin: 0.5",
        [
            "looks at 6, 8 seeds, 2 contrasts: a difference can be decided from 8 seeds on at 5 %; earlier looks can "
            "only decide equivalence within ±0.5",
            "80 % power to detect a difference of 1.4 standard deviations of the paired differences with all 8 seeds; "
            "slightly larger because of the looks",
            "80 % power to show equivalence within ±0.5 points between equal arms, if the standard deviation of their "
            "paired differences is at most 0.37 points",
        ],
    ),
    "looks that are too few": (
        "seeds: {looks: [2, 4]}",
        ["this design cannot decide a difference: looks at 2, 4 seeds, 2 contrasts; use more seeds or fewer contrasts"],
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_a_design_says_what_it_can_decide(study, case):
    rest, lines = SAID[case]
    assert design_lines(study(TWO + rest)) == lines


def test_a_grid_says_it_of_its_effects_too(study):
    lines = design_lines(study("factors: {distill.csf: [null, {}], distill.pea: [null, {}]}\nseeds: 8"))
    assert lines[0] == (
        "8 seeds, 3 contrasts and 3 effects: the smallest adjusted p is 0.047, so a difference can be decided at 5 %"
    )


def test_a_study_that_compares_nothing_has_nothing_to_decide(study):
    assert design_lines(study("variants: {a: {}}")) == []
    search = "search: {trials: 1, space: {optim.lr: {log: [1.0e-4, 1.0e-2]}}}\n"
    assert design_lines(study(search, data=", select: 0.1")) == []
