"""Statistics against brute force: every sign vector, every set of hypotheses, every pair of points, every cell."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from ablations.statistics.factor_effects import effects_of
from ablations.statistics.holm import holm
from ablations.statistics.paired import equivalence_p, interval, prediction_interval
from ablations.statistics.pareto import front
from ablations.statistics.sequential_test import GRID_STEPS, differ_p, levels, shares
from ablations.statistics.sign_flip import sign_flip_p
from ablations.statistics.winners import Tuned, winners
from ablations.study.search import Search
from ablations.study.trial import Trial
from ablations.table.marks import marks
from ablations.table.shape import Row, Table

TENTHS = st.integers(-4, 4) | st.integers(-1000, 1000)
"""Differences in tenths: few enough for ties and equal sizes, whole so that a brute force is exact."""
SMALL = st.integers(-3, 3)
P = st.sampled_from([0.0, 0.001, 0.01, 0.0125, 0.02, 0.05, 0.5, 1.0]) | st.floats(0, 1)
SAMPLES = st.lists(st.floats(-50, 50).map(lambda x: round(x, 3)), min_size=2, max_size=9)


def signs(n):
    """All (2**n, n) of them."""
    return np.array(list(itertools.product((-1, 1), repeat=n))).reshape(2**n, n)


def points(tenths):
    return np.array(tenths, dtype=float) / 10


@given(st.lists(TENTHS, max_size=10))
def test_sign_flip_is_the_share_of_all_sign_vectors_that_are_as_extreme(tenths):
    sums = signs(len(tenths)) @ np.array(tenths, dtype=int)
    assert sign_flip_p(points(tenths)) == np.mean(abs(sums) >= abs(sum(tenths)))


@given(st.lists(TENTHS, max_size=13).flatmap(lambda d: st.tuples(st.just(d), st.permutations(d))), st.integers(-9, 9))
def test_sign_flip_knows_neither_direction_nor_order_nor_scale(both, power):
    d, permuted = map(points, both)
    assert sign_flip_p(d) == sign_flip_p(-d) == sign_flip_p(permuted) == sign_flip_p(d * 2.0**power)


@given(st.lists(st.tuples(TENTHS, st.integers(0, 50)), max_size=12))
def test_sign_flip_of_differences_that_grow_in_their_direction_never_rises(pairs):
    before, added = [d for d, _ in pairs], [more for _, more in pairs]
    assume(sum(before) >= 0)
    after = [d + more for d, more in zip(before, added, strict=True)]
    assert sign_flip_p(points(after)) <= sign_flip_p(points(before))


def consistent(claims, contrasts):
    """All sets of claims, as (claim, contrast), that may be wrong at once: one a contrast at most."""
    for chosen in itertools.product((None, *range(claims)), repeat=contrasts):
        if found := {(claim, contrast) for contrast, claim in enumerate(chosen) if claim is not None}:
            yield found


@given(st.integers(1, 2), st.integers(1, 4), st.data())
def test_holm_multiplies_by_the_most_hypotheses_that_can_still_be_true(claims, contrasts, data):
    p = [data.draw(st.lists(P, min_size=contrasts, max_size=contrasts)) for _ in range(claims)]
    sets = list(consistent(claims, contrasts))
    left = {(claim, contrast) for claim in range(claims) for contrast in range(contrasts)}
    expected, worst = {}, 0.0
    for claim, contrast in sorted(left, key=lambda at: (p[at[0]][at[1]], *at)):
        worst = max(worst, min(1.0, max(len(one) for one in sets if one <= left) * p[claim][contrast]))
        expected[claim, contrast] = worst
        left.remove((claim, contrast))
    found = holm(*p)
    assert {at: found[at[0]][at[1]] for at in expected} == expected
    # Closed testing: a hypothesis falls where every set falls that it is in, each by Bonferroni.
    for at, adjusted in expected.items():
        closed = max(min(1.0, len(one) * min(p[i][j] for i, j in one)) for one in sets if at in one)
        assert adjusted == pytest.approx(closed) if claims == 1 else adjusted >= closed - 1e-12
        assert adjusted >= p[at[0]][at[1]]


@given(st.lists(P, min_size=2, max_size=6), st.data())
def test_holm_of_a_smaller_p_is_never_larger(p, data):
    at = data.draw(st.integers(0, len(p) - 1))
    smaller = [*p[:at], p[at] * data.draw(st.floats(0, 1)), *p[at + 1 :]]
    assert all(after <= before for after, before in zip(holm(smaller)[0], holm(p)[0], strict=True))


@given(SAMPLES, st.floats(0.01, 60))
def test_equivalence_is_two_one_sided_t_tests(sample, margin):
    d = np.array(sample)
    assume(d.std() > 1e-6)
    low = reference.ttest_1samp(d, -margin, alternative="greater").pvalue
    high = reference.ttest_1samp(d, margin, alternative="less").pvalue
    assert equivalence_p(d, margin) == pytest.approx(max(low, high), abs=1e-12)
    assert equivalence_p(d, margin) == pytest.approx(equivalence_p(-d, margin), abs=1e-12)


@given(SAMPLES, st.floats(0.01, 60), st.floats(0, 5))
def test_equivalence_within_a_wider_margin_is_never_less_certain_and_farther_from_zero_never_more(sample, margin, more):
    d = np.array(sample)
    p = equivalence_p(d, margin)
    assert equivalence_p(d, margin + more) <= p + 1e-12
    if d.std() > 1e-6:
        assert equivalence_p(d + math.copysign(more, d.mean()), margin) >= p - 1e-9


@given(SAMPLES, st.sampled_from([0.5, 0.95, 0.99]))
def test_intervals_are_scipys(sample, level):
    n, mean, spread = len(sample), np.mean(sample), np.std(sample, ddof=1)
    assume(spread > 1e-6)
    theirs = reference.ttest_1samp(sample, 0).confidence_interval(level)
    assert interval(np.array(sample), level) == pytest.approx(tuple(theirs))
    # Of one more value less the mean of these, the variance is that of a value and 1 / n of it.
    more = reference.t.interval(level, n - 1, mean, math.hypot(spread, spread / math.sqrt(n)))
    assert prediction_interval(sample, level) == pytest.approx(more)


BLOCK = st.lists(TENTHS | SMALL, max_size=5)
ALIKE = st.tuples(st.lists(st.integers(1, 9), max_size=5), st.sampled_from([-1, 1])).map(
    lambda b: [b[1] * d for d in b[0]]
)
"""Differences of one sign: only such blocks are rejected at an early look, and maybe not at a later one."""
BLOCKS = st.lists(BLOCK | ALIKE, min_size=1, max_size=3).filter(lambda blocks: sum(map(len, blocks)) <= 10)


def blocks_of(tenths):
    return [points(block) for block in tenths]


def by_enumeration(blocks, looks, m, alpha):
    """`differ_p` with every sign vector written out: the smallest level that was crossed by each look."""
    first = next((k for k in range(len(blocks)) if np.abs(np.concatenate(blocks[: k + 1])).any()), None)
    unit = 1.0 if first is None else np.abs(np.concatenate(blocks[: first + 1])).mean() / GRID_STEPS
    steps = [np.rint(np.clip(block / unit, -64 * GRID_STEPS, 64 * GRID_STEPS)).astype(int) for block in blocks]
    flips = signs(sum(map(len, steps)))
    rungs = levels(m, alpha)
    alive, spent, smallest, found = np.ones((rungs.size, len(flips)), bool), np.zeros(rungs.size), 1.0, []
    for k, share in enumerate(shares(looks)[: len(blocks)]):
        ours = np.concatenate(steps[: k + 1])
        sums = abs(flips[:, : ours.size] @ np.abs(ours))
        at_least = 0
        for i, level in enumerate(rungs):  # the largest first: what it does not reject, no smaller one does
            allowed = level * share - spent[i]
            critical = next(
                c
                for c in sorted({0, *(sums + 1), *sums})
                if c >= at_least and (alive[i] & (sums >= c)).mean() <= allowed
            )
            at_least = critical
            spent[i] += (alive[i] & (sums >= critical)).mean()
            alive[i] &= sums < critical
            if abs(ours.sum()) >= critical:
                smallest = min(smallest, level)
        found.append(smallest)
    return found


@given(BLOCKS, st.integers(1, 4), st.sampled_from([0.05, 0.3, 0.6]), st.data())
def test_looks_reject_what_an_enumeration_of_all_signs_rejects(tenths, m, alpha, data):
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=len(tenths), max_size=3))
    looks = tuple(itertools.accumulate(sizes))
    blocks = blocks_of(tenths)
    found = differ_p(blocks, looks, m, alpha)
    assert found == pytest.approx(by_enumeration(blocks, looks, m, alpha))
    # A later look changes no earlier one, and what was rejected stays so.
    assert all(found[: k + 1] == differ_p(blocks[: k + 1], looks, m, alpha) for k in range(len(blocks)))
    assert found == sorted(found, reverse=True)
    # Neither direction nor scale, nor the order within a look, moves anything.
    assert found == differ_p([-4 * block[::-1] for block in blocks], looks, m, alpha)


@given(BLOCKS, st.integers(1, 3), st.data())
def test_looks_at_sums_that_are_all_farther_from_zero_never_have_a_larger_p(tenths, m, data):
    looks = tuple(itertools.accumulate(max(1, len(block)) for block in tenths))
    flipped = [[d * data.draw(st.sampled_from([-1, 1])) for d in block] for block in tenths]
    near, far = ([abs(sum(itertools.chain(*side[: k + 1]))) for k in range(len(side))] for side in (tenths, flipped))
    if any(one > other for one, other in zip(near, far, strict=True)):
        flipped = [[abs(d) for d in block] for block in tenths]
    p_near, p_far = (differ_p(blocks_of(side), looks, m, 0.3) for side in (tenths, flipped))
    assert all(after <= before for after, before in zip(p_far, p_near, strict=True))


@given(st.lists(st.tuples(SMALL, SMALL, SMALL | st.just(math.nan)), max_size=12))
def test_the_front_is_what_no_other_point_beats(drawn):
    def beats(one, other):
        gains = (one[0] - other[0], other[1] - one[1], other[2] - one[2])
        return min(gains) >= 0 and max(gains) > 0

    known = [i for i, point in enumerate(drawn) if not any(map(math.isnan, point))]
    assert front(drawn) == [i for i in known if not any(beats(drawn[j], drawn[i]) for j in known)]


VERDICTS = st.sampled_from(["better", "worse", "better", "worse", "equivalent", "undecided", "not yet", ""])


@given(
    st.integers(1, 5).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(*2 * [st.integers(0, n - 1)], VERDICTS), max_size=9))
    )
)
def test_marks_are_set_by_the_transitive_closure_of_the_verdicts(drawn):
    n, verdicts = drawn
    rows = [Row((), {"arm": "teacher", "role": "teacher"})]
    rows += [Row((), {"arm": str(arm), "role": "arm"}) for arm in range(n)]
    rows += [
        Row((), {"arm": str(arm), "reference": str(other), "verdict": word, "again": True})
        for arm, other, word in verdicts
        if arm != other
    ]
    above = np.zeros((n, n), bool)
    for arm, other, word in verdicts:
        if arm != other and word in ("better", "worse"):
            above[(arm, other) if word == "better" else (other, arm)] = True
    for _ in range(n):
        above |= above @ above
    circle = bool(above.diagonal().any())
    np.fill_diagonal(above, False)
    best = [arm for arm in range(n) if n > 1 and above[arm].sum() == n - 1]
    second = [arm for arm in range(n) if best and n > 2 and above[arm].sum() == n - 2]
    expected = {1 + arm: "best" for arm in best} | {1 + arm: "second" for arm in second}
    found = marks(Table("", (), tuple(rows), ()))
    assert found.items() <= expected.items() if circle else found == expected


LEVELS = {
    "distill.csf": ("csf", {"null": "off", "{}": "on"}),
    "distill.pea": ("pea", {"null": "off", "{}": "on"}),
    "optim.lr": ("lr", {"1.0e-3": "0.001", "2.0e-3": "0.002", "3.0e-3": "0.003"}),
    "distill.csf.weight": ("csf.weight", {"0.1": "0.1", "1.0": "1"}),
}


def written_factors(paths):
    return "factors: {" + ", ".join(f"{path}: [{', '.join(LEVELS[path][1])}]" for path in paths) + "}\n"


def name_of(point):
    """The arm at a point, path -> label: a weight of csf stands in it where csf is on."""
    idle = point.get("distill.csf") == "off"
    return ", ".join(
        f"{LEVELS[path][0]}={label}" for path, label in point.items() if not (idle and path == "distill.csf.weight")
    )


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(list(LEVELS)).flatmap(lambda order: st.integers(2, 4).map(lambda n: order[:n])), st.data())
def test_effects_are_mean_differences_of_cells(study, paths, data):
    assume("distill.csf.weight" not in paths or "distill.csf" in paths)
    clash = {"distill.csf", "distill.pea"} <= set(paths) and data.draw(st.booleans())
    written = study(written_factors(paths) + ("excludes: [[distill.csf, distill.pea]]\n" if clash else ""))
    labels = {path: list(LEVELS[path][1].values()) for path in paths}
    grid = [dict(zip(paths, point, strict=True)) for point in itertools.product(*labels.values())]
    scores = {
        name_of(point): dict(enumerate(data.draw(st.lists(st.integers(0, 99), min_size=2, max_size=2))))
        for point in grid
        if not (clash and point["distill.csf"] == point["distill.pea"] == "on")
    }
    gone = data.draw(st.sampled_from([None, *scores]))
    if gone:
        del scores[gone][1]
    found = {effect.name: effect for effect in effects_of(written).effects}
    expected = {}
    for size in (1, 2):
        for own in itertools.combinations(paths, size):
            for chosen in itertools.product(*(labels[path][1:] for path in own)):
                title = " × ".join(f"{LEVELS[path][0]}={label}" for path, label in zip(own, chosen, strict=True))
                cells = []
                for point in grid:
                    if any(point[path] != labels[path][0] for path in own):
                        continue
                    moves = [
                        {path: label for path, label, on in zip(own, chosen, ons, strict=True) if on}
                        for ons in itertools.product((0, 1), repeat=size)
                    ]
                    names = [name_of(point | move) for move in moves]
                    if len({*names}) == len(names) and all(name in scores for name in names):
                        cells.append([(names[i], (-1) ** (size - len(move))) for i, move in enumerate(moves)])
                if cells:
                    expected[title] = cells
    assert list(found) == sorted(found, key=lambda title: " × " in title) and found.keys() == expected.keys()
    for title, cells in expected.items():
        seeds = [seed for seed in (0, 1) if all(seed in scores[name] for cell in cells for name, _ in cell)]
        means = [np.mean([sum(sign * scores[name][seed] for name, sign in cell) for cell in cells]) for seed in seeds]
        assert [*found[title].by_seed(scores).values()] == pytest.approx(means)
        assert found[title].points == len(cells)


STATES = st.sampled_from(["finished", "finished", "finished", "stopped", "failed", "running"])
SCORES = st.sampled_from([None, math.nan, math.inf]) | st.integers(0, 3).map(float)


@given(st.integers(1, 5), st.lists(st.tuples(STATES, SCORES), max_size=6), st.randoms())
def test_the_winner_is_the_first_of_the_best_finished_trials_once_all_have_ended(budget, drawn, random):
    trials = [
        Trial(number, {"optim.lr": number}, state, metrics={} if score is None else {"select/miou": score})
        for number, (state, score) in enumerate(drawn)
    ]
    ended = sum(state != "running" for state, _ in drawn)
    able = [(score, -n) for n, (state, score) in enumerate(drawn) if state == "finished" and score in (0, 1, 2, 3)]
    random.shuffle(trials)
    search = Search(space={"optim.lr": {"log": [1.0e-4, 1.0e-2]}}, trials=budget)
    found = Tuned(search, tuple(trials))
    assert found.left == max(0, budget - ended)
    expected = -max(able)[1] if able and ended >= budget else None
    assert (found.winner.number if found.winner else None) == expected
    assert winners({"arm": found}) == ({} if expected is None else {"arm": {"optim.lr": expected}})
