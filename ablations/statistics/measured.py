"""Measured: scores of arms that anybody measured, and the verdicts on their contrasts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ablations.statistics.holm import FAMILY_WISE
from ablations.statistics.paired import Comparison, Verdict, compare, mean_std, seeds_needed
from ablations.statistics.unpaired import compare_unpaired, is_exact, smallest_unpaired_p, values_needed
from ablations.statistics.verdicts import Contrast

OPPOSITE: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}


def by_number(seed: str) -> tuple[bool, int, str]:
    """A key that sorts whole numbers by size, then words."""
    whole = seed.removeprefix("-").isdecimal()
    return not whole, int(seed) if whole else 0, seed


@dataclass(frozen=True)
class Measured:
    """Scores by arm and seed, and what is compared. Every arm of a pair has a score."""

    metric: str
    scores: dict[str, dict[str, float]]
    """Arm -> seed -> score, finite; where seeds are no pairs, they number the values of an arm."""
    pairs: tuple[tuple[str, str], ...]
    """The contrasts: (arm, the arm it is compared with)."""
    paired: bool
    """Whether scores of one seed are pairs."""
    minimise: bool = False
    """Whether less is better."""
    margin: float | None = None
    """Equivalence margin, in units of the metric."""

    @property
    def seeds(self) -> list[str]:
        """All seeds: whole numbers by size, then words."""
        return sorted({seed for own in self.scores.values() for seed in own}, key=by_number)

    def sizes(self, pair: tuple[str, str]) -> tuple[int, int]:
        """The values of the two arms that are compared; of pairs the number of pairs, twice."""
        arm, reference = (self.scores[name] for name in pair)
        both = len(arm.keys() & reference.keys())
        return (both, both) if self.paired else (len(arm), len(reference))

    @property
    def exact(self) -> bool:
        """Whether no p is of a random draw."""
        return self.paired or all(is_exact(*self.sizes(pair)) for pair in self.pairs)

    @property
    def smallest_p(self) -> float:
        """The smallest p that any contrast can reach, after Holm."""
        reached = [2.0 / 2**n if self.paired else smallest_unpaired_p(n, m) for n, m in map(self.sizes, self.pairs)]
        return min(1.0, len(self.pairs) * min(reached, default=1.0))

    @property
    def can_decide(self) -> bool:
        """Whether any contrast can be called better or worse."""
        return self.smallest_p <= FAMILY_WISE

    @property
    def needed(self) -> int:
        """The fewest seeds, or values of each arm, with which a contrast could be called better or worse."""
        return (seeds_needed if self.paired else values_needed)(len(self.pairs))


def measured_verdicts(measured: Measured) -> list[Contrast]:
    """The verdict on each contrast, in the order of the pairs."""
    found: list[Comparison]
    if measured.paired:
        found = compare(measured.scores, measured.pairs, measured.margin)
    else:
        values = {arm: list(own.values()) for arm, own in measured.scores.items()}
        found = [*compare_unpaired(values, measured.pairs, measured.margin)]
    if measured.minimise:
        found = [replace(one, verdict=OPPOSITE.get(one.verdict, one.verdict)) for one in found]
    return [Contrast(*pair, one, pending=False) for pair, one in zip(measured.pairs, found, strict=True)]


def decimals(measured: Measured) -> int:
    """The decimals of scores, 1 to 12: the first digit of the smallest deviation of an arm is shown."""
    spreads = [mean_std(list(own.values()))[1] for own in measured.scores.values()]
    # Rounding errors of equal values are no deviation.
    smallest = min((spread for spread in spreads if spread > 1e-12), default=1.0)
    return min(12, max(1, -math.floor(math.log10(smallest))))
