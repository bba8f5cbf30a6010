"""Holm's procedure: adjusted p and levels of one family say the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.statistics.holm import holm, holm_levels

P = st.sampled_from([0.0, 0.001, 0.01, 0.0125, 0.05 / 3, 0.02, 0.025, 0.05, 0.5, 1.0]) | st.floats(0, 1)


@pytest.mark.slow
@given(st.lists(st.tuples(P, P), min_size=1, max_size=6), st.booleans())
def test_a_claim_is_accepted_where_its_p_is_at_most_its_level(pairs, two):
    claims = list(zip(*pairs, strict=True))[: 1 + two]
    for p, adjusted, levels in zip(claims, holm(*claims), holm_levels(*claims), strict=True):
        for own, corrected, level in zip(p, adjusted, levels, strict=True):
            assert (own <= level) == (corrected <= 0.05)
            assert level <= 0.05


def test_levels_by_hand():
    assert holm_levels([0.02, 0.01, 0.3])[0] == pytest.approx([0.025, 0.05 / 3, 0.05])
    assert holm_levels([0.2, 0.03, 0.3])[0] == pytest.approx([0.05 / 3] * 3)
