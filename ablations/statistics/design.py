"""Design: which differences a study's seeds and contrasts can detect, known before any run."""

from __future__ import annotations

from ablations.statistics.blocks import block_count, seeds_per_block, teachers_are_blocks
from ablations.statistics.factor_effects import count_tests, effects_tested
from ablations.statistics.holm import FAMILY_WISE
from ablations.statistics.paired import can_decide, seeds_needed, smallest_adjusted_p
from ablations.statistics.power import POWER, smallest_difference, smallest_margin
from ablations.statistics.sequential_test import first_look
from ablations.study.plan import expand
from ablations.study.schema import Study
from trainer.config import counted


def design_lines(study: Study) -> list[str]:
    """What the study can decide; no lines for a study without contrasts."""
    n, m = block_count(study), count_tests(study)
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
    return lines + (_teacher_lines(study) if study.teachers > 1 else [])


def _teacher_lines(study: Study) -> list[str]:
    """For which teachers the verdicts will hold, and what this and each other number of teachers costs."""
    n, trained = len(study.seeds), [run for run in expand(study) if run.role == "teacher"]
    epochs = sum(run.config.optim.epochs for run in trained) // study.teachers
    ways = []
    for count in (count for count in range(1, n + 1) if n % count == 0):
        general = teachers_are_blocks(study.model_copy(update={"teachers": count}))
        ways.append(f"{count} ({counted(count * epochs, 'epoch')}, {'all' if general else 'these'})")
    holds = "all teachers of their recipe" if teachers_are_blocks(study) else f"these {study.teachers} teachers only"
    each = counted(n // study.teachers, "seed")
    return [
        f"{study.teachers} teachers with {each} each: verdicts hold for {holds}",
        f"teachers by their number, what they cost, and whether verdicts hold for all or for these: {', '.join(ways)}",
    ]


def decidable(study: Study) -> str:
    """Whether the study can decide a difference at all, and from which look on."""
    if not study.looks:
        block = "teacher" if seeds_per_block(study) > 1 else "seed"
        return describe_design(block_count(study), len(study.pairs), effects_tested(study), block=block)
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


def describe_design(n: int, contrasts: int, effects: int = 0, alpha: float = FAMILY_WISE, block: str = "seed") -> str:
    """Whether a design of n seeds, or of other blocks, can decide a difference, in one line."""
    m = contrasts + effects
    counts = ", ".join(counted(count, what) for count, what in ((n, block), (contrasts, "contrast")))
    counts += f" and {counted(effects, 'effect')}" if effects else ""
    smallest = f"the smallest adjusted p is {smallest_adjusted_p(n, m):.2g}"
    if can_decide(n, m, alpha):
        return f"{counts}: {smallest}, so a difference can be decided at {alpha * 100:g} %"
    return f"this design cannot decide a difference: {counts}, {smallest}; {seeds_needed(m, alpha)} {block}s could"
