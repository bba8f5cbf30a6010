"""What do looks cost in power, and what do they save in runs?   python benchmarks/adaptive_seeds.py

Simulated studies of three arms against one reference, at looks of 6, 8 and 12 seeds beside the fixed design of 12, on
the same normal seeds. Effects, margin and deviation are of paired differences, whose standard deviation is 1. A false
verdict is a difference where there is none, or an equivalence where the arms differ by the margin.
"""

from __future__ import annotations

import math
import time

import numpy as np

from ablations.statistics.paired import compare
from ablations.statistics.seed_looks import take_looks
from ablations.study.schema import Study

LOOKS = (6, 8, 12)
STUDIES = 1000
MARGIN = 1.5
CASES = {
    "no effect": (0.0, 0.0, 0.0),
    "all by 0.5": (0.5, 0.5, 0.5),
    "all by 1": (1.0, 1.0, 1.0),
    "all by 1.5": (1.5, 1.5, 1.5),
    "all by 2": (2.0, 2.0, 2.0),
    "all by 3": (3.0, 3.0, 3.0),
    "one by 2, two by none": (2.0, 0.0, 0.0),
}
"""The true differences of the three arms."""


def study(margin: float | None) -> Study:
    """Three arms against the first, with looks."""
    arms = {"reference": {}, **{f"arm {i}": {"optim.lr": 0.1 * (i + 1)} for i in range(3)}}
    return Study.model_validate(
        {"name": "simulated", "base": {}, "variants": arms, "seeds": {"looks": list(LOOKS)}, "margin": margin}
    )


def simulate(effects: tuple[float, ...], margin: float | None, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Verdicts (studies, contrasts) of the fixed and of the sequential design; the share of runs made (studies,)."""
    asked = study(margin)
    arms = list(asked.compared.overrides)
    ended = dict.fromkeys(arms, range(LOOKS[-1]))
    fixed, looked, made = [], [], []
    for _ in range(STUDIES):
        seeds = rng.normal(0, math.sqrt(0.5), (len(arms), LOOKS[-1]))
        means = (0.0, *effects)
        scores = {arm: dict(enumerate(row + mean)) for arm, row, mean in zip(arms, seeds, means, strict=True)}
        fixed.append([one.verdict for one in compare(scores, asked.pairs, margin)])
        came = take_looks(asked, ended, scores)
        looked.append([one.verdict for one in came.comparisons])
        made.append(sum(came.due.values()) / (len(arms) * LOOKS[-1]))
    return np.array(fixed), np.array(looked), np.array(made)


def main() -> None:
    """Print both designs side by side."""
    began = time.perf_counter()
    rng = np.random.default_rng(0)
    print(f"{STUDIES} studies a line, looks at {LOOKS}, fixed design of {LOOKS[-1]}")
    print(f"{'differences':24}{'decided':>20}{'false in a study':>22}{'runs saved':>12}")
    print(f"{'':24}{'fixed':>10}{'looks':>10}{'fixed':>12}{'looks':>10}")
    for name, effects in CASES.items():
        fixed, looked, made = simulate(effects, None, rng)
        row(name, fixed, looked, made, np.array(effects) == 0, ("better", "worse"))
    print(f"\nmargin {MARGIN}")
    for name, effects in {"no effect": (0.0,) * 3, "at the margin": (MARGIN,) * 3, "all by 3": (3.0,) * 3}.items():
        fixed, looked, made = simulate(effects, MARGIN, rng)
        row(name, fixed, looked, made, np.array(effects) >= MARGIN, ("equivalent",))
    print(f"\n{time.perf_counter() - began:.0f} s")


def row(name: str, fixed: np.ndarray, looked: np.ndarray, made: np.ndarray, false: np.ndarray, words: tuple) -> None:
    """A line of the table: `words` are wrong for the contrasts in `false`."""
    decided = [float((verdicts != "undecided").mean()) for verdicts in (fixed, looked)]
    wrong = [float((np.isin(verdicts, words) & false).any(axis=1).mean()) for verdicts in (fixed, looked)]
    print(f"{name:24}{decided[0]:10.1%}{decided[1]:10.1%}{wrong[0]:12.1%}{wrong[1]:10.1%}{1 - made.mean():12.1%}")


if __name__ == "__main__":
    main()
