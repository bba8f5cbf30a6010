"""Effects table: the main effects and interactions of a factorial study, shown below its table of arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ablations.statistics.factor_effects import Effect, count_tests, effects_of
from ablations.statistics.outcome import Outcome, arms_not_ended, scores_by_arm
from ablations.statistics.paired import Comparison, compare_samples
from ablations.study.metric import described
from ablations.study.plan import Run
from ablations.study.schema import Study
from ablations.table.shape import Column, Row, Table, difference
from trainer.config import counted

_COLUMNS = (
    Column("effect"),
    Column("vs"),
    Column("points", right=True),
    Column("n", right=True),
    Column("difference [interval]", right=True),
    Column("verdict"),
)


def effects_table(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> tuple[Table, ...]:
    """The table of effects; empty for a study with fewer than two factors. A seed counts where all cells have a score.

    A study with looks gets no verdicts here, as seeds were added depending on the tests of its contrasts.
    """
    effects, missing = effects_of(study)
    if not effects and not missing:
        return ()
    scores = scores_by_arm(study, runs, outcomes)
    not_ended = arms_not_ended(runs, outcomes)
    ended = [not study.looks and not not_ended & effect.weights.keys() for effect in effects]
    samples = [effect.by_seed(scores) for effect in effects]
    compared = compare_samples(samples, ended, study.margin, tests=count_tests(study))
    words = [
        one.verdict if done else "" if study.looks else "not yet" for one, done in zip(compared, ended, strict=True)
    ]
    rows = [_row(effect, one, word) for effect, one, word in zip(effects, compared, words, strict=True)]
    explained = [
        "An effect is the mean difference between two levels of a factor, over the points of the grid that have both. "
        "A × B is the interaction of A and B: how the effect of A differs between levels of B.",
    ]
    if study.looks:
        explained.append(
            "Effects have no verdicts and no intervals in this study, because seeds were added until the contrasts of "
            "the arms were decided."
        )
    elif effects:
        explained.append("Effects and contrasts of arms are one family of tests.")
    explained += missing
    notes = ["A × B: interaction of A and B"] if any(" × " in effect.name for effect in effects) else []
    notes += ["no verdicts on effects: seeds were added until the contrasts above were decided"] if study.looks else []
    notes += [f"not estimable: {counted(len(missing), 'effect')}"] if missing else []
    title = f"effects   of the factors of {study.name} on {described(study.metric)}"
    return (Table(title, _COLUMNS, tuple(rows), tuple(notes), explained=tuple(explained)),)


def _row(effect: Effect, found: Comparison, word: str) -> Row:
    cells = (
        effect.name,
        effect.against,
        "all" if effect.points == effect.of else f"{effect.points} of {effect.of}",
        str(found.n),
        difference(found.difference, found.low, found.high),
        word,
    )
    values = {"effect": effect.name, "reference": effect.against, "points": effect.points, "of_points": effect.of}
    return Row(cells, values | found.values() | {"verdict": word})
