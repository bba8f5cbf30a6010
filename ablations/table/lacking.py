"""Seeds that an undecided contrast lacks: how many more would show a difference, or equivalence."""

from __future__ import annotations

from typing import Any

from ablations.statistics.power import LARGEST_SAMPLE, seeds_for_equivalence, seeds_to_detect, upper_deviation
from ablations.statistics.verdicts import Contrast


def seeds_lacking(contrast: Contrast, margin: float | None, tests: int, each: int = 1) -> dict[str, Any]:
    """The seeds beyond those of a contrast that would detect a difference of `lacking_for` points with 80 % power in a
    family of so many tests, `lacking_least` to `lacking_most`, and that would show equivalence within as much,
    `same_least` to `same_most`. Each observation of a test is of `each` seeds.

    `lacking_for` is the margin or, without one, the measured difference. The range is from the measured standard
    deviation of the differences to its upper confidence limit. None above `LARGEST_SAMPLE` seeds in total; nothing
    where the differences do not vary or are 0.
    """
    found = contrast.found
    size = margin or abs(found.difference)
    if found.n < 2 or not found.deviation or not size:
        return {}
    most = upper_deviation(found.deviation, found.n)
    totals = {
        f"{name}_{end}": needed(size, deviation, tests)
        for name, needed in (("lacking", seeds_to_detect), ("same", seeds_for_equivalence))
        for end, deviation in (("least", found.deviation), ("most", most))
    }
    more = {name: None if total is None else max(total - found.n, 0) * each for name, total in totals.items()}
    return {"lacking_for": size, **more}


def ranged(least: int | None, most: int | None) -> str:
    """`6 to 15`."""
    few, many = (str(seeds) if seeds is not None else f"over {LARGEST_SAMPLE}" for seeds in (least, most))
    return few if few == many else f"{few} to {many}"
