"""How often are verdicts wrong over several data sets, or over several teachers?   python benchmarks/across.py

Simulated tables of three contrasts. First four data sets of seven seeds, with paired differences of standard deviations
0.5, 1, 1 and 2 points, beside one of them (of standard deviation 1) with as many runs. Then fourteen seeds under one
teacher or several. A verdict is false where its sign is not that of the true mean difference over the four data sets,
or over all teachers that the recipe may give.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ablations.statistics.blocks import observations
from ablations.statistics.holm import FAMILY_WISE, holm
from ablations.statistics.paired import compare_samples
from ablations.statistics.stratified import mean_of_means, stratified_p
from ablations.study.schema import Study

TABLES = 2000
CONTRASTS = 3
SEEDS = 7
DEVIATIONS = (0.5, 1.0, 1.0, 2.0)
"""Of the paired differences of each data set, in points."""
SINGLE = 1
"""The data set that is compared with all four, at as many runs."""
TEACHERS = (1, 2, 7, 14)

Effects = Callable[[np.random.Generator], tuple[float, ...]]
"""The true difference of a contrast in each data set."""


def around(mean: float, spread: float) -> Effects:
    """Differences that are drawn for each data set; their mean over the four is exactly `mean`."""

    def drawn(rng: np.random.Generator) -> tuple[float, ...]:
        found = rng.normal(0, spread, len(DEVIATIONS))
        return tuple(found - found.mean() + mean)

    return drawn


CASES: dict[str, Effects] = {
    "none": lambda rng: (0.0, 0.0, 0.0, 0.0),
    "+1, +1, -1, -1": lambda rng: (1.0, 1.0, -1.0, -1.0),
    "+1.5, three of -0.5": lambda rng: (1.5, -0.5, -0.5, -0.5),
    "drawn around 0": around(0.0, 0.5),
    "0.5 in all": lambda rng: (0.5, 0.5, 0.5, 0.5),
    "drawn around 0.5": around(0.5, 0.5),
    "1 in all": lambda rng: (1.0, 1.0, 1.0, 1.0),
    "drawn around 1": around(1.0, 0.5),
    "2, and three of 0": lambda rng: (2.0, 0.0, 0.0, 0.0),
}


def signs(strata: list[list[np.ndarray]]) -> np.ndarray:
    """The verdict on each contrast (contrasts,): 1 better, -1 worse, 0 undecided."""
    (p,) = holm([stratified_p(of) for of in strata])
    return np.where(np.array(p) <= FAMILY_WISE, np.sign([mean_of_means(of) for of in strata]), 0)


def over_data_sets(effects: Effects, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Verdicts (tables, contrasts) over four data sets and of the single one, and the signs of the true means."""
    over, single, truth = [], [], []
    for _ in range(TABLES):
        means = [effects(rng) for _ in range(CONTRASTS)]
        over.append(signs([[rng.normal(m, s, SEEDS) for m, s in zip(of, DEVIATIONS, strict=True)] for of in means]))
        runs = SEEDS * len(DEVIATIONS)
        single.append(signs([[rng.normal(of[SINGLE], DEVIATIONS[SINGLE], runs)] for of in means]))
        truth.append([np.sign(round(float(np.mean(of)), 9)) for of in means])
    return np.array(over), np.array(single), np.array(truth)


def over_teachers(count: int, mean: float, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Verdicts (tables, contrasts) of studies with so many teachers, each of which shifts a contrast's difference by a
    draw of mean 0 and the standard deviation `spread`."""
    seeds = TEACHERS[-1]
    arms = {"reference": {}, **{f"arm {i}": {"optim.lr": 0.1 * (i + 1)} for i in range(CONTRASTS)}}
    study = Study.model_validate({"name": "simulated", "base": {}, "variants": arms, "seeds": seeds, "teachers": count})
    words = []
    for _ in range(TABLES):
        shifts = rng.normal(0, spread, (CONTRASTS, count))
        samples = [mean + shift[np.arange(seeds) % count] + rng.normal(0, 1, seeds) for shift in shifts]
        observed = [observations(study, dict(enumerate(d.tolist()))) for d in samples]
        found = compare_samples(observed, [True] * CONTRASTS)
        words.append([{"better": 1, "worse": -1}.get(one.verdict, 0) for one in found])
    return np.array(words)


def rates(verdicts: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The share of contrasts that are decided rightly, and of tables with a false verdict."""
    wrong = (verdicts != 0) & (verdicts != truth)
    return float(((verdicts != 0) & ~wrong).mean()), float(wrong.any(axis=1).mean())


def main() -> None:
    """Print both tables."""
    began, rng = time.perf_counter(), np.random.default_rng(0)
    print(f"{TABLES} tables a line, {CONTRASTS} contrasts, {len(DEVIATIONS)} data sets of {SEEDS} seeds")
    print(f"{'true differences':24}{'rightly decided':>20}{'false in a table':>22}")
    print(f"{'':24}{'over four':>10}{'one':>10}{'over four':>12}{'one':>10}")
    for name, effects in CASES.items():
        over, single, truth = over_data_sets(effects, rng)
        (right, wrong), (right_of_one, wrong_of_one) = rates(over, truth), rates(single, truth)
        print(f"{name:24}{right:10.1%}{right_of_one:10.1%}{wrong:12.1%}{wrong_of_one:10.1%}")
    print(f"\n{TEACHERS[-1]} seeds of standard deviation 1, and teachers that shift the difference")
    print(f"{'mean, shift':24}" + "".join(f"{f'{count} teachers':>16}" for count in TEACHERS))
    for mean, spread in ((0.0, 0.0), (0.0, 0.5), (0.0, 1.0), (1.0, 0.0), (1.0, 0.5), (1.0, 1.0)):
        cells = []
        for count in TEACHERS:
            verdicts = over_teachers(count, mean, spread, rng)
            right, wrong = rates(verdicts, np.full(verdicts.shape, np.sign(mean)))
            cells.append(f"{f'{right:.1%} right' if mean else f'{wrong:.1%} false':>16}")
        print(f"{f'{mean:g}, {spread:g}':24}{''.join(cells)}")
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
