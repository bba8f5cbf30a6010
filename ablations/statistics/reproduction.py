"""Reproduction: whether our runs bear out a published number, and what forbids to ask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ablations.statistics.outcome import MISSING, Outcome, protocol
from ablations.statistics.paired import mean_std, prediction_interval
from ablations.study.arms import label
from ablations.study.metric import is_whole
from ablations.study.plan import Run
from ablations.study.published import ASPECTS, Published
from ablations.study.schema import Study
from trainer.config import Term

LEAST_SEEDS = 3
"""Fewer give a prediction interval that holds nearly every number."""
TEACHER_TOLERANCE = 0.1
"""mIoU points by which a teacher from a checkpoint may miss the published one and still be that teacher."""

Verdict = Literal["yes", "no", "undecided", "not yet", "recipe differs", "recipe unknown"]


class Reproduction(NamedTuple):
    """What an arm's runs say of its published number: the single runs of a publication take no part in verdicts."""

    published: float
    verdict: Verdict
    differs: tuple[str, ...]
    """`path ours (published)`, one an entry; empty where the recipes are equal."""
    unknown: tuple[str, ...]
    """Aspects of which the published recipe says nothing."""


def reproductions(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> dict[str, Reproduction]:
    """By row of the table, for those that have a published number of the table's protocol."""
    published = study.published
    if published is None or published.protocol != protocol(study) or not is_whole(study.metric):
        return {}
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.arm, []).append(run)
    found: dict[str, Reproduction] = {}
    for arm, group in groups.items():  # teachers come first, and an arm is judged with its own
        name = "teacher" if group[0].role == "teacher" else arm
        if name not in published.arms or (name == "teacher" and not _is_published_teacher(published, group[0])):
            continue
        taught = next((found.get(run.arm) for run in runs if run.key == group[0].needs), None)
        found[arm] = _reproduction(study, name, group, outcomes, taught)
    return found


def reproduction_notes(study: Study, found: Mapping[str, Reproduction]) -> list[str]:
    """The source, the rule, and what differs: what all rows have in common once, then the rest by row."""
    published = study.published
    if published is None:
        return []
    if published.protocol != protocol(study):
        return [f"published numbers left out: {published.protocol} protocol, and this table's is {protocol(study)}"]
    if not is_whole(study.metric):
        return [f"published numbers left out: they are of all val, and this table's are of {study.metric}"]
    notes = [
        f"published: {published.source}; single runs, best epoch on val; "
        "best is our mean over seeds of the same, and no verdict uses either"
    ]
    if any(not row.differs and not row.unknown for row in found.values()):
        margin = f"within ±{study.margin:g} points of our best, or " if study.margin else ""
        notes.append(
            f"reproduced: the published number lies {margin}in the 95 % prediction interval of one more run "
            f"like ours ({LEAST_SEEDS} seeds at least)"
        )
    return (
        notes
        + _by_row("recipe differs", "ours (published)", {arm: row.differs for arm, row in found.items()})
        + (_by_row("recipe unknown", "the source does not say", {arm: row.unknown for arm, row in found.items()}))
    )


def _by_row(kind: str, how: str, entries: Mapping[str, tuple[str, ...]]) -> list[str]:
    common = [text for text in next(iter(entries.values()), ()) if all(text in row for row in entries.values())]
    lines = [f"{kind}, {how}: {', '.join(common)}"] if common else []
    rest: dict[str, list[str]] = {}
    for arm, row in entries.items():
        if own := ", ".join(text for text in row if text not in common):
            rest.setdefault(own, []).append(arm)
    return lines + [f"{kind} for {', '.join(arms)}, {how}: {own}" for own, arms in rest.items()]


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
            differs.append("a teacher that is not reproduced")
        elif taught.verdict == "not yet":
            verdict = "not yet"
    if differs or unknown:
        verdict = "recipe differs" if differs else "recipe unknown"
    return Reproduction(number, verdict, tuple(differs), tuple(unknown))


def _verdict(study: Study, group: Sequence[Run], outcomes: Mapping[str, Outcome], number: float) -> Verdict:
    ended = [outcomes.get(run.key, MISSING) for run in group]
    if any(outcome.status in ("missing", "running") for outcome in ended):
        return "not yet"
    bests = [o.best.get(study.metric, math.nan) for o in ended if o.status == "finished"]
    bests = [best for best in bests if math.isfinite(best)]
    mean, _ = mean_std(bests)
    if bests and study.margin and abs(mean - number) <= study.margin:
        return "yes"
    if len(bests) < LEAST_SEEDS:
        return "undecided"
    low, high = prediction_interval(bests)
    return "yes" if low <= number <= high else "no"


def _differences(run: Run, recipe: Mapping[str, Any]) -> list[str]:
    """`path ours (published)` for what a run does otherwise, a held-out or otherwise cut train split included."""
    config = run.config.model_dump(mode="json")
    config["optim"]["norm_batch"] = run.config.optim.effective_norm_batch
    options = {f"data.options.{name}": None for name in config["data"]["options"]}
    whole = {"data.select": 0.0} | options | {"data.options.whole": True}
    pairs = [
        (path, _at(config, path), theirs)
        for path, theirs in (whole | dict(recipe)).items()
        if path != "distill" and (config["teacher"] is not None or not path.startswith("teacher."))
    ]
    found = [f"{path} {_short(ours)} ({_short(theirs)})" for path, ours, theirs in pairs if ours != theirs]
    if "distill" not in recipe:
        return found
    return found + _path_differences(
        run.config.active, {name: Term.model_validate(term) for name, term in recipe["distill"].items()}
    )


def _path_differences(ours: Mapping[str, Term], theirs: Mapping[str, Term]) -> list[str]:
    """What either side has and the other lacks, as written: what an unwritten option is, only the modules know."""
    found = []
    for name in {**theirs, **ours}:
        if name not in ours or name not in theirs:
            here, there = ("used" if name in side else "not used" for side in (ours, theirs))
            found.append(f"distill.{name} {here} ({there})")
            continue
        own, other = (
            {"weight": term.weight} | {f"options.{option}": value for option, value in term.options.items()}
            for term in (ours[name], theirs[name])
        )
        found += [
            f"distill.{name}.{key} {_short(own.get(key))} ({_short(other.get(key))})"
            for key in other | own
            if own.get(key) != other.get(key)
        ]
    return found


def _at(config: Any, path: str) -> Any:
    """The value at a dotted path, or None. Of `student.init` only whether there is one: files have many names."""
    for part in path.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    if path == ASPECTS["initialisation"] and config != "scratch":
        return "pretrained"
    return config


def _short(value: Any) -> str:
    """A value as it stands in a note; a list too long to read is counted."""
    if isinstance(value, list | tuple) and len(value) > 4:
        return f"{len(value)} numbers"
    return "not set" if value is None else label(value)
