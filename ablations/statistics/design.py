"""Design: which differences a study's seeds and contrasts can detect, known before any run."""

from __future__ import annotations

from ablations.statistics.factor_effects import count_tests, effects_tested
from ablations.statistics.holm import FAMILY_WISE
from ablations.statistics.paired import can_decide, seeds_needed, smallest_adjusted_p
from ablations.statistics.power import POWER, smallest_difference, smallest_margin
from ablations.statistics.sequential_test import first_look
from ablations.study.schema import Study
from trainer.config import counted


def design_lines(study: Study) -> list[str]:
    """What the study can decide; no lines for a study without contrasts."""
    n, m = len(study.seeds), count_tests(study)
    if not study.pairs:
        return []
    lines = [decidable(study)]
    with_power = f"{POWER * 100:g} % power to"
    if (detects := smallest_difference(n, m)) is not None:
        looks = f" with all {n} seeds; slightly larger because of the looks" if study.looks else ""
        lines.append(
            f"{with_power} detect a difference of {detects:.1f} standard deviations of the paired differences{looks}"
        )
    if study.margin is not None and (reached := smallest_margin(n, m)) is not None:
        lines.append(
            f"{with_power} show equivalence within ±{study.margin:g} points between equal arms, if the standard "
            f"deviation of their paired differences is at most {study.margin / reached:.2g} points"
        )
    return lines


def decidable(study: Study) -> str:
    """Whether the study can decide a difference at all, and from which look on."""
    if not study.looks:
        return describe_design(len(study.seeds), len(study.pairs), effects_tested(study))
    m = len(study.pairs)
    counts = f"looks at {', '.join(map(str, study.looks))} seeds, {counted(m, 'contrast')}"
    first = first_look(study.looks, m)
    if first is None:
        return f"this design cannot decide a difference: {counts}; use more seeds or fewer contrasts"
    said = f"{counts}: a difference can be decided from {first} seeds on at {FAMILY_WISE * 100:g} %"
    if first == study.looks[0]:
        return said
    if study.margin:
        return f"{said}; earlier looks can only decide equivalence within ±{study.margin:g}"
    return f"{said}; earlier looks cannot reach significance"


def describe_design(n: int, contrasts: int, effects: int = 0, alpha: float = FAMILY_WISE) -> str:
    """Whether a design can decide a difference, in one line."""
    m = contrasts + effects
    counts = ", ".join(counted(count, what) for count, what in ((n, "seed"), (contrasts, "contrast")))
    counts += f" and {counted(effects, 'effect')}" if effects else ""
    smallest = f"the smallest adjusted p is {smallest_adjusted_p(n, m):.2g}"
    if can_decide(n, m, alpha):
        return f"{counts}: {smallest}, so a difference can be decided at {alpha * 100:g} %"
    return f"this design cannot decide a difference: {counts}, {smallest}; {seeds_needed(m, alpha)} seeds could"
