"""Reproduction: whether our runs reproduce a published number, and why a comparison is not valid where it is not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ablations.statistics.outcome import MISSING, Outcome, arms_not_ended, protocol
from ablations.statistics.paired import mean_std, prediction_interval
from ablations.study.arms import label, value_at
from ablations.study.metric import is_whole
from ablations.study.plan import Run, by_arm
from ablations.study.published import ASPECTS, SUMS, Published
from ablations.study.schema import Study
from trainer.config import Term

MIN_SEEDS = 3
"""The fewest seeds for a verdict: the prediction interval of two is so wide that nearly every number lies in it."""
TEACHER_TOLERANCE = 0.1
"""mIoU points by which a teacher from a checkpoint may differ from the published one and count as the same."""

Verdict = Literal["yes", "no", "undecided", "not yet", "recipe differs", "recipe unknown"]


class Reproduction(NamedTuple):
    """Whether an arm's runs reproduce its published number. Published numbers take no part in the table's verdicts."""

    published: float
    verdict: Verdict
    differs: tuple[str, ...]
    """An entry `path ours (published)` for each difference; empty where the recipes are equal."""
    unknown: tuple[str, ...]
    """Aspects that the published recipe does not give."""


def reproductions(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> dict[str, Reproduction]:
    """By label, for the rows of the table that have a published number of the table's protocol."""
    published = study.published
    if published is None or published.protocol != protocol(study) or not is_whole(study.metric):
        return {}
    found: dict[str, Reproduction] = {}
    for arm, group in by_arm(runs).items():  # teachers come first: the result of an arm depends on its teacher's
        name = "teacher" if group[0].role == "teacher" else arm
        if name not in published.arms or (name == "teacher" and not _is_published_teacher(published, group[0])):
            continue
        taught = next((found.get(run.arm) for run in runs if run.key == group[0].needs), None)
        found[arm] = _reproduction(study, name, group, outcomes, taught)
    return found


def reproduction_notes(study: Study, found: Mapping[str, Reproduction]) -> list[str]:
    """The source, the rule, and the differences of recipes: those common to all rows once, then the others by row."""
    published = study.published
    if published is None:
        return []
    if published.protocol != protocol(study):
        theirs, ours = published.protocol, protocol(study)
        return [f"Published numbers are left out: they are of the {theirs} protocol, and this table of {ours}."]
    if not is_whole(study.metric):
        return [f"Published numbers are left out: they are mIoU over all of val, and this table shows {study.metric}."]
    notes = [
        f"Published numbers are from {published.source}: single runs at their best epoch on val. Best is our mean over "
        "seeds at the best epoch. The verdicts use neither."
    ]
    if any(not row.differs and not row.unknown for row in found.values()):
        margin = f"within ±{study.margin:g} points of our best, or " if study.margin else ""
        notes.append(
            f"Reproduced means that the published number lies {margin}in the 95 % prediction interval for one more run "
            f"like ours, from at least {MIN_SEEDS} seeds."
        )
    return (
        notes
        + _by_row("Recipe differs", "ours (published)", {arm: row.differs for arm, row in found.items()})
        + (_by_row("Recipe unknown", "the source does not say", {arm: row.unknown for arm, row in found.items()}))
    )


def _by_row(kind: str, how: str, entries: Mapping[str, tuple[str, ...]]) -> list[str]:
    common = [text for text in next(iter(entries.values()), ()) if all(text in row for row in entries.values())]
    lines = [f"{kind}, {how}: {', '.join(common)}."] if common else []
    rest: dict[str, list[str]] = {}
    for arm, row in entries.items():
        if own := ", ".join(text for text in row if text not in common):
            rest.setdefault(own, []).append(arm)
    return lines + [f"{kind} for {', '.join(arms)}, {how}: {own}." for own, arms in rest.items()]


def _is_published_teacher(published: Published, run: Run) -> bool:
    return published.recipe.get("teacher.name", run.config.student.name) == run.config.student.name


def _reproduction(
    study: Study, name: str, group: Sequence[Run], outcomes: Mapping[str, Outcome], taught: Reproduction | None
) -> Reproduction:
    assert study.published is not None
    number, recipe = study.published.arms[name], study.published.recipe_of(name)
    differs = list(_differences(group[0], recipe))
    unknown = [f"{aspect} ({path})" for aspect, path in ASPECTS.items() if path not in recipe]
    verdict = _verdict(study, group, outcomes, number)
    if group[0].config.teacher is not None:
        theirs = study.published.arms.get("teacher")
        if theirs is None:
            unknown.append("the teacher's mIoU")
        elif group[0].needs is None:
            stated = group[0].config.teacher.miou
            if stated is None or abs(stated - theirs) > TEACHER_TOLERANCE:
                differs.append(f"teacher.miou {label(stated)} ({label(theirs)})")
        elif taught is None or taught.verdict in ("no", "undecided", "recipe differs", "recipe unknown"):
            differs.append("the teacher is not reproduced")
        elif taught.verdict == "not yet":
            verdict = "not yet"
    if differs or unknown:
        verdict = "recipe differs" if differs else "recipe unknown"
    return Reproduction(number, verdict, tuple(differs), tuple(unknown))


def _verdict(study: Study, group: Sequence[Run], outcomes: Mapping[str, Outcome], number: float) -> Verdict:
    if arms_not_ended(group, outcomes):
        return "not yet"
    ended = [outcomes.get(run.key, MISSING) for run in group]
    bests = [o.best.get(study.metric, math.nan) for o in ended if o.status == "finished"]
    bests = [best for best in bests if math.isfinite(best)]
    mean, _ = mean_std(bests)
    if bests and study.margin and abs(mean - number) <= study.margin:
        return "yes"
    if len(bests) < MIN_SEEDS:
        return "undecided"
    low, high = prediction_interval(bests)
    return "yes" if low <= number <= high else "no"


def _differences(run: Run, recipe: Mapping[str, Any]) -> list[str]:
    """`path ours (published)` for each setting of a run that differs, a reduced train split included."""
    config = run.config.model_dump(mode="json")
    config["optim"]["norm_batch"] = run.config.optim.effective_norm_batch
    options = {f"data.options.{name}": None for name in config["data"]["options"]}
    whole = {"data.select": 0.0} | options | {"data.options.whole": True}
    pairs = [
        (path, _compared_value(config, path), theirs)
        for path, theirs in (whole | dict(recipe)).items()
        if path not in SUMS and (config["teacher"] is not None or not path.startswith("teacher."))
    ]
    found = [f"{path} {_brief(ours)} ({_brief(theirs)})" for path, ours, theirs in pairs if ours != theirs]
    for section, active in (("distill", run.config.active), ("loss", run.config.active_losses)):
        if section in recipe:
            theirs = {name: Term.model_validate(term) for name, term in recipe[section].items()}
            found += _term_differences(section, active, theirs)
    return found


def _term_differences(section: str, ours: Mapping[str, Term], theirs: Mapping[str, Term]) -> list[str]:
    """The knowledge paths or task losses that differ, with their weights and options. Options are compared as written,
    without the defaults that the modules fill in."""
    found = []
    for name in {**theirs, **ours}:
        if name not in ours or name not in theirs:
            here, there = ("used" if name in side else "not used" for side in (ours, theirs))
            found.append(f"{section}.{name} {here} ({there})")
            continue
        own, other = (
            {"weight": term.weight} | {f"options.{option}": value for option, value in term.options.items()}
            for term in (ours[name], theirs[name])
        )
        found += [
            f"{section}.{name}.{key} {_brief(own.get(key))} ({_brief(other.get(key))})"
            for key in other | own
            if own.get(key) != other.get(key)
        ]
    return found


def _compared_value(config: Any, path: str) -> Any:
    """The value at a dotted path. Every file of weights in `student.init` counts as `pretrained`."""
    value = value_at(config, path)
    return "pretrained" if path == ASPECTS["initialisation"] and value != "scratch" else value


def _brief(value: Any) -> str:
    """A value as shown in a note; of a list with more than four entries only their number."""
    if isinstance(value, list | tuple) and len(value) > 4:
        return f"{len(value)} numbers"
    return "not set" if value is None else label(value)
