"""Scores: what is measured and compared, from long rows and the user's choices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ablations.statistics.measured import Measured, by_number
from orchestrator.judging.columns import less_is_better
from orchestrator.judging.frame import Frame
from orchestrator.judging.rows import Row, Rows
from trainer.config import UserError, check_name, counted, message_of, unknown

MOST = 400
"""The most scores of an arm: with more, the test takes minutes."""
MOST_PAIRS = 1000
"""The most contrasts: with more, the page takes minutes."""
BASELINES = ("baseline", "base", "reference", "control", "vanilla", "none", "student", "student alone")
"""Names of arms that others are compared with."""
LISTED = 5
"""The most seeds that a remark names."""


@dataclass(frozen=True)
class Choices:
    """What the user says of the frame: names of columns and arms; None is guessed."""

    arm: str | None = None
    seed: str | None = None
    metric: str | None = None
    reference: str | None = None
    contrasts: tuple[str, ...] = ()
    """`A:B`: arm A is compared with arm B."""
    minimise: bool | None = None
    margin: float | None = None
    unpaired: bool = False
    """Whether seeds are no pairs although they have the same names."""


def check_margin(margin: float | None) -> None:
    """Raise UserError for a margin that is no positive number."""
    if margin is not None and not 0 < margin < math.inf:
        raise UserError(f"--margin must be a positive number, in units of the metric, but got {margin:g}")


def measured_of(found: Rows, choices: Choices, frame: Frame) -> tuple[Measured, tuple[str, ...]]:
    """What is measured, and how it was read, in sentences. Raises UserError where it cannot be judged."""
    source = frame.source
    by_seed = _by_arm(found.rows, frame)
    if len(by_seed) < 2:
        raise UserError(f"{source} has one arm, {next(iter(by_seed), 'none')}; a comparison needs two")
    pairs, remarks = _pairs(by_seed, found, choices, source)
    minimise = _minimise(found.metric, choices.minimise)
    paired, why = False, ["Scores are tested as not paired, as --unpaired says."]
    if not choices.unpaired:
        seeded = any(row.seed is not None for row in found.rows)
        paired, why = _paired(by_seed, pairs, source, seeded=seeded)
    if not paired:
        by_seed = {arm: {str(i): score for i, score in enumerate(own.values(), 1)} for arm, own in by_seed.items()}
    _check_sizes(by_seed, pairs, source)
    measured = Measured(found.metric, by_seed, pairs, paired, minimise, choices.margin)
    return measured, (*found.remarks, *remarks, *why, *_missing(measured))


def _by_arm(rows: Sequence[Row], frame: Frame) -> dict[str, dict[str, float]]:
    """Scores by arm and seed; rows without a seed are numbered. Raises UserError for two rows of one arm and seed."""
    found: dict[str, dict[str, float]] = {}
    places: dict[tuple[str, str], str] = {}
    for row in rows:
        if row.arm not in found:
            _check_arm(row, frame)
        own = found.setdefault(row.arm, {})
        seed = str(len(own) + 1) if row.seed is None else row.seed
        if seed in own:
            first = places[row.arm, seed]
            raise UserError(
                f"{frame.source}: {first} and {row.place} are both of arm {row.arm}, seed {seed}"
                f"{_told_apart(frame, first, row.place)}; keep one row of each arm and seed, or name another "
                "column by --seed"
            )
        own[seed], places[row.arm, seed] = row.score, row.place
    return {arm: {seed: own[seed] for seed in sorted(own, key=by_number)} for arm, own in found.items()}


def _check_arm(row: Row, frame: Frame) -> None:
    """Raise UserError for an arm whose name cannot be shown in a line of a table, or read there."""
    try:
        check_name(row.arm)
    except ValueError as error:
        raise UserError(f"{frame.source}: {row.place}: arm: {message_of(error)}") from None


def _told_apart(frame: Frame, one: str, other: str) -> str:
    """The columns in which two rows differ, such as `epoch`."""
    i, k = frame.rows.index(one), frame.rows.index(other)
    differ = [name for name, cells in frame.columns.items() if cells[i] != cells[k]]
    return f" (they differ in {', '.join(differ[:LISTED])})" if differ else ""


def _pairs(
    scores: Mapping[str, object], found: Rows, choices: Choices, source: str
) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    """The contrasts, and how they were guessed."""
    if choices.contrasts:
        if choices.reference:
            raise UserError("--contrasts names the references itself; leave --reference out")
        pairs = tuple(_contrast(text, scores) for text in choices.contrasts)
        if len(set(map(frozenset, pairs))) < len(pairs):
            raise UserError("--contrasts: two arms may be compared once; name each pair once")
        return pairs, []
    named = tuple(pair for pair in found.pairs if set(pair) <= scores.keys())
    if choices.reference is None and named:
        return named, []
    reference, said = choices.reference, []
    if reference is None:
        reference = next((arm for arm in scores if arm.lower() in BASELINES), next(iter(scores)))
        said = [f"Guessed: every arm is compared with {reference} (--reference)."]
    if reference not in scores:
        raise UserError(f"--reference: {source}: {unknown('arm', reference, scores)}")
    return tuple((arm, reference) for arm in scores if arm != reference), said


def _contrast(text: str, arms: Iterable[str]) -> tuple[str, str]:
    """`A:B` as a pair of arms, whose names may contain colons."""
    meant = [(arm, other) for arm in arms for other in arms if arm != other and f"{arm}:{other}" == text]
    if len(meant) == 1:
        return meant[0]
    if meant:
        listed = " or ".join(f"{arm} against {other}" for arm, other in meant)
        raise UserError(f"--contrasts {text} could be {listed}; rename an arm")
    arm, colon, reference = text.partition(":")
    for name in (arm, reference) if colon else (arm,):
        if name not in arms:
            raise UserError(f"--contrasts {text}: {unknown('arm', name, arms)}; write ARM:REFERENCE")
    what = "an arm cannot be compared with itself" if colon else "names one arm"
    raise UserError(f"--contrasts {text}: {what}; write ARM:REFERENCE")


def _minimise(metric: str, given: bool | None) -> bool:
    if given is None and less_is_better(metric):
        raise UserError(f"{metric}: by its name less is better; say --minimise, or --maximise if more is")
    return bool(given)


def _paired(
    scores: Mapping[str, Mapping[str, float]], pairs: Sequence[tuple[str, str]], source: str, *, seeded: bool
) -> tuple[bool, list[str]]:
    """Whether seeds are pairs, and why they are not. Raises UserError where a contrast has too few of them."""
    if not seeded:
        return False, ["No column holds seeds, so scores are tested as not paired (--seed names a column of seeds)."]
    common = {pair: len(scores[pair[0]].keys() & scores[pair[1]].keys()) for pair in pairs}
    if not any(common.values()):
        return False, ["Arms that are compared share no seed, so scores are tested as not paired."]
    for (arm, reference), count in common.items():
        if count < 2:
            raise UserError(
                f"{source}: {arm} and {reference} share {counted(count, 'seed')}, and a paired comparison needs 2; add "
                "seeds, or say --unpaired"
            )
    return True, []


def _check_sizes(scores: Mapping[str, Mapping[str, float]], pairs: Sequence[tuple[str, str]], source: str) -> None:
    """Raise UserError where a comparison has too few scores, or where there is more than can be compared in time."""
    if len(pairs) > MOST_PAIRS:
        raise UserError(
            f"{source}: there may be {MOST_PAIRS:,} contrasts, but {counted(len(scores), 'arm')} make {len(pairs):,}; "
            "name the column of arms by --arm, or the pairs by --contrasts"
        )
    for arm, reference in pairs:
        if len(scores[arm]) == len(scores[reference]) == 1:
            raise UserError(
                f"{source}: {arm} and {reference} have one score each; a comparison needs two of either arm"
            )
    most = max(scores, key=lambda arm: len(scores[arm]))
    if len(scores[most]) > MOST:
        raise UserError(f"{source}: an arm may have {MOST} scores, but {most} has {len(scores[most])}; give fewer")


def _missing(measured: Measured) -> list[str]:
    """A sentence for each arm that lacks seeds of another."""
    said = []
    for arm, own in measured.scores.items():
        if measured.paired and (lacking := [seed for seed in measured.seeds if seed not in own]):
            more = f" and {len(lacking) - LISTED} more" if len(lacking) > LISTED else ""
            what = "seed" if len(lacking) == 1 else "seeds"
            said.append(f"{arm} lacks {what} {', '.join(lacking[:LISTED])}{more}: compared on the seeds of both arms.")
    return said
