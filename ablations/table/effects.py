"""Effects table: the main effects and interactions of a factorial study, under its table of arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ablations.statistics.factor_effects import Effect, effects_of, tests_of
from ablations.statistics.outcome import MISSING, Outcome, scores_of
from ablations.statistics.paired import Comparison, judge
from ablations.study.metric import described
from ablations.study.plan import Run
from ablations.study.schema import Study
from ablations.table.shape import Column, Row, Table, difference

_COLUMNS = (
    Column("effect"),
    Column("vs"),
    Column("points", right=True),
    Column("n", right=True),
    Column("difference [95 %]", right=True),
    Column("verdict"),
)


def effects_table(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> tuple[Table, ...]:
    """The table of effects, or none where the study has no two factors. A seed counts where all its cells have a score.

    A study with looks gets no verdicts here: its seeds were chosen by other tests.
    """
    effects, missing = effects_of(study)
    if not effects and not missing:
        return ()
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.arm, []).append(run)
    scores = {arm: scores_of(study, group, outcomes) for arm, group in groups.items()}
    waiting = {run.arm for run in runs if outcomes.get(run.key, MISSING).status in ("missing", "running")}
    ended = [not study.looks and not waiting & effect.weights.keys() for effect in effects]
    compared = judge([effect.by_seed(scores) for effect in effects], ended, study.margin, tests=tests_of(study))
    words = [
        one.verdict if done else "" if study.looks else "not yet" for one, done in zip(compared, ended, strict=True)
    ]
    rows = [_row(effect, one, word) for effect, one, word in zip(effects, compared, words, strict=True)]
    notes = [
        "effect: mean difference over the points of the grid that have both levels; × is what two levels do together "
        "beyond the sum of what each does alone",
    ]
    if study.looks:
        notes.append("no verdicts: seeds were added until the contrasts above were decided, not these")
    elif effects:
        notes.append("verdicts share their 5 % with the contrasts above")
    title = f"effects   of the factors of {study.name} on {described(study.metric)}"
    return (Table(title, _COLUMNS, tuple(rows), (*notes, *missing)),)


def _row(effect: Effect, found: Comparison, word: str) -> Row:
    cells = (
        effect.name,
        effect.against,
        "all" if effect.points == effect.of else f"{effect.points} of {effect.of}",
        str(found.n),
        difference(found.difference, found.low, found.high, found.n),
        word,
    )
    values = {"effect": effect.name, "reference": effect.against, "points": effect.points, "of_points": effect.of}
    return Row(cells, values | found.values() | {"verdict": word})
