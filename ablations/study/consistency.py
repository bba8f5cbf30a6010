"""Whether the parts of a study fit together: what varies, which settings, how many teachers, the names of arms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablations.study.arms import check_rules, mentioned
from trainer.config import UserError, parse, unknown

if TYPE_CHECKING:
    from ablations.study.schema import Study

FIXED_IN_A_SEARCH = ("teacher", "data.name", "data.size", "data.options", "data.select")
"""Settings that no search may vary: scores under different teachers or data cannot be ranked. Make them factors."""


def check_kind(study: Study) -> None:
    """Raise UserError unless one thing varies, and what is given beside it suits that."""
    given = [kind for kind in ("variants", "factors", "search") if getattr(study, kind) is not None]
    if len(given) > 1 or not (given or study.leave_one_out):
        got = " and ".join(given) or "none"
        raise UserError(f"a study has one of variants, factors, search (or leave_one_out alone), but got {got}")
    if study.leave_one_out and given not in ([], ["variants"]):
        raise UserError(f"leave_one_out adds to variants, not to {given[0]}; write the arms as variants")
    if study.tune_each is not None and given not in ([], ["variants"]):
        raise UserError(f"tune_each tunes variants, not {given[0]}; write the arms as variants")
    if study.search is not None:
        for key in ("reference", "contrasts", "margin", "published"):
            if key in study.model_fields_set:
                raise UserError(f"{key} belongs to arms, and a search has none; remove it")
        if len(study.seeds) > 1:
            raise UserError(f"seeds: a search runs each trial once, but got {len(study.seeds)} seeds; give one")
    for kind, searched in (("search", study.search), ("tune_each", study.tune_each)):
        if searched is not None and not parse(study.base).data.select:
            raise UserError(f"{kind} selects by {searched.metric}: set base.data.select above 0, such as 0.1")


def check_paths(study: Study) -> None:
    """Raise UserError where a setting is varied that all arms or trials share, or a rule names no knowledge path."""
    kind, searched = ("search", study.search) if study.search else ("tune_each", study.tune_each)
    space = searched.space if searched else {}
    changes = [
        *(study.variants or {}).values(),
        *({path: value} for path, values in (study.factors or {}).items() for value in values.values()),
        *({path: value} for path, values in space.items() for value in values.choices.values() or (None,)),
    ]
    if "seed" in study.base or any("seed" in overrides for overrides in changes):
        raise UserError("seed must not be set in the config of a study; list it under `seeds`, which all arms share")
    for path in space:
        for fixed in FIXED_IN_A_SEARCH:
            if f"{path}.".startswith(f"{fixed}.") or f"{fixed}.".startswith(f"{path}."):
                raise UserError(
                    f"{kind}.space: trials share one {path.split('.')[0]}, so {path} is fixed; make it a factor"
                )
    check_rules(study.requires, study.excludes, mentioned(study.base, changes))


def check_teachers(study: Study) -> None:
    """Raise UserError unless the seeds can be shared out to the study's teachers."""
    if study.search is not None or study.looks:
        kind = "a search" if study.search is not None else "seeds with looks"
        raise UserError(f"teachers: {kind} has one teacher, but got {study.teachers}; remove it, or give `seeds: N`")
    if len(study.seeds) % study.teachers:
        n = len(study.seeds)
        possible = ", ".join(str(t) for t in range(2, n + 1) if n % t == 0)
        raise UserError(
            f"teachers: each must have as many of the {n} seeds, but got {study.teachers}; "
            + (f"give one of {possible}" if possible else "give more seeds")
        )


def check_names(study: Study) -> None:
    """Raise UserError where the reference, a contrast, a published score or a look is of no arm."""
    arms = study.compared.overrides
    if study.published and "teacher" in arms:
        raise UserError("variants.teacher: `published` uses this name for the run that trains the teacher; rename it")
    for where, names in (
        ("reference", [study.reference] if study.reference else []),
        ("contrasts", [name for pair in study.contrasts for name in pair]),
        ("published", [n for n in (study.published.arms if study.published else {}) if n != "teacher"]),
    ):
        for name in names:
            if name not in arms:
                raise UserError(f"{where}: {unknown('arm', name, arms)}")
    for pair in study.contrasts:
        if pair[0] == pair[1]:
            raise UserError(f"contrasts: '{pair[0]}' is compared with itself; name another reference")
    if study.looks and (not study.pairs or study.looks[-1] != len(study.seeds)):
        raise UserError(
            "looks must be written as `seeds: {looks: [6, 8, 12]}` in a study with a contrast, but got "
            f"{len(study.pairs)} contrasts, looks {list(study.looks)} and {len(study.seeds)} seeds"
        )
    if len(set(map(frozenset, study.contrasts))) < len(study.contrasts):
        raise UserError(
            "contrasts: two arms may be compared once, as every test lowers the power of the others; remove one"
        )
