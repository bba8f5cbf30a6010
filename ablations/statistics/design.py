"""Design: what a study's seeds and contrasts can decide, in lines to be read before they cost anything."""

from __future__ import annotations

from ablations.statistics.factor_effects import effects_tested, tests_of
from ablations.statistics.paired import FAMILY_WISE, counted, describe_design
from ablations.statistics.power import POWER, detectable, excludable
from ablations.statistics.sequential_test import first_look
from ablations.study.schema import Study


def design_lines(study: Study) -> list[str]:
    """What the study can decide; nothing for a study that compares nothing."""
    n, m = len(study.seeds), tests_of(study)
    if not study.pairs:
        return []
    lines = [reach(study)]
    with_power = f"{POWER * 100:g} % power to"
    if (sees := detectable(n, m)) is not None:
        atop = f" with all {n} seeds, or a little more" if study.looks else ""
        lines.append(f"{with_power} see a difference of {sees:.1f} standard deviations of the paired differences{atop}")
    if study.margin is not None and (excludes := excludable(n, m)) is not None:
        lines.append(
            f"{with_power} exclude ±{study.margin:g} points between equal arms whose paired differences vary by "
            f"{study.margin / excludes:.2g} points or less"
        )
    return lines


def reach(study: Study) -> str:
    """Whether the study can decide a difference at all, and with looks from which on."""
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
    return said + (f", before only equivalence within ±{study.margin:g}" if study.margin else ", a look before is idle")
