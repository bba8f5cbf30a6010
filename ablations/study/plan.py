"""Plan: from a study to its runs, each with a complete config: teachers first, then all arms of a seed together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ablations.study.arms import applies, check_count, contradiction, terms
from ablations.study.schema import Study
from ablations.study.search import Dimension, Search
from ablations.study.teachers import check_several, numbered, teacher_config, teacher_labels
from ablations.study.variant_search import searches
from trainer.config import TrainConfig, UserError, digest, located, override, parse, unknown


@dataclass(frozen=True)
class Run:
    """One training run of a study: its label and everything that affects its results."""

    role: Literal["teacher", "arm", "trial"]
    arm: str
    """Its label, which names its row in tables: runs of one label differ only in their seeds."""
    seed: int
    config: TrainConfig
    changed: dict[str, Any]
    """Dotted path -> value where it differs from the base, as written in the study."""
    teacher: TrainConfig | None
    """Config of the run that trains its teacher; None without a teacher, or with one from a checkpoint."""
    awaits: str = ""
    """Identity of the search whose best values it will use, while they are unknown; `config` is then without them."""

    @cached_property
    def key(self) -> str:
        """12 hex digits that identify the config."""
        return digest([self.awaits, self.seed]) if self.awaits else self.config.key

    @cached_property
    def needs(self) -> str | None:
        """`key` of the run that trains its teacher."""
        return self.teacher.key if self.teacher else None

    @property
    def label(self) -> str:
        """How a person calls it: `TransKD-GL seed 1`, `trial 7`."""
        return self.arm if self.role == "trial" else f"{self.arm} seed {self.seed}"


def by_arm(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by label, in the order in which labels first occur."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.arm, []).append(run)
    return groups


def expand(study: Study, winners: Mapping[str, Mapping[str, Any]] | None = None) -> list[Run]:
    """All runs of a study that are known before it starts; of a search the teacher's, as trials are proposed later.

    `winners` gives, by tuned arm, the values of the best trial as proposed; runs of a tuned arm without an entry await
    its search. All arms of a seed stand together, so a study that is stopped early has complete pairs. Raises UserError
    on an arm whose config is not valid, on two arms that would compute the same, and on an arm with a teacher's name.
    """
    base = parse(study.base, f"{study.name}: base")
    if study.search is not None:
        check_space(study)
        return _teacher_runs(study, [[teacher_config(base, base)]])
    tuned = searches(study)
    for arm, search in tuned.items():
        with located(f"tune_each of {arm}"):
            check_space(search)
    values = {arm: _resolved(tuned[arm], won) for arm, won in (winners or {}).items()}
    configs = _configs(study, values)
    _refuse_duplicates(
        _configs(study, {arm: _first_point(search) for arm, search in tuned.items()}) if tuned else configs
    )
    awaits = {arm: search_identity(search) for arm, search in tuned.items() if arm not in values}
    changed = {
        arm: changes | values.get(arm, dict.fromkeys(space(tuned[arm]), "tuned") if arm in tuned else {})
        for arm, changes in study.compared.overrides.items()
    }
    if study.teachers > 1:
        with located(study.name):
            check_several(configs)
    taught = [{name: numbered(config, k) for name, config in configs.items()} for k in range(study.teachers)]
    trained = [{name: teacher_config(base, config) for name, config in group.items()} for group in taught]
    arms = []
    for number, seed in enumerate(study.seeds):
        teacher = trained[number % study.teachers]
        for name, config in taught[number % study.teachers].items():
            own = config.model_copy(update={"seed": seed})
            arms.append(Run("arm", name, seed, own, changed[name], teacher[name], awaits.get(name, "")))
    return [*_teacher_runs(study, [group.values() for group in trained]), *arms]


def _configs(study: Study, values: Mapping[str, Mapping[str, Any]]) -> dict[str, TrainConfig]:
    """The config of every arm, before its seed is set, with `values` (by arm) as further overrides."""
    return {
        arm: _canonical(_build(study, {**changes, **values.get(arm, {})}, f"{study.name}: {arm}"))
        for arm, changes in study.compared.overrides.items()
    }


def _first_point(study: Study) -> dict[str, Any]:
    """One value for every dimension, to find variants that are equal once tuned values no longer tell them apart."""
    return _resolved(study, {path: _ends(dimension)[0] for path, dimension in space(study).items()})


def _build(study: Study, changes: Mapping[str, Any], where: str) -> TrainConfig:
    try:
        data = override(study.base, changes, absent_ok=study.variants is None)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return parse(data, where)


def _canonical(config: TrainConfig) -> TrainConfig:
    """The config without inactive paths and unused teachers, so that the student alone is one run in all studies."""
    return config.model_copy(update={"distill": config.active, "teacher": config.teacher if config.active else None})


def _refuse_duplicates(configs: Mapping[str, TrainConfig]) -> None:
    names: dict[str, str] = {}
    for name, config in configs.items():
        other = names.setdefault(config.key, name)
        if other != name:
            raise UserError(f"arms '{other}' and '{name}' are the same run; drop one, or change what should differ")


def _teacher_runs(study: Study, trained: Sequence[Iterable[TrainConfig | None]]) -> list[Run]:
    """One run for each distinct teacher: arms that share one train it once. `trained` has a list for each number of a
    teacher; all that are trained by one recipe share a label."""
    groups = [{config.key: config for config in group if config} for group in trained]
    with located(study.name):
        labels = teacher_labels(groups[0], study.compared.overrides).values()
    return [
        Run("teacher", label, config.seed, config, {}, None)
        for group in groups
        for label, config in zip(labels, group.values(), strict=True)
    ]


def space(study: Study) -> dict[str, Dimension]:
    """The dimensions of a search in the order of proposal: a knowledge path comes before its weight and options."""
    dimensions = _search(study).space
    return {path: dimensions[path] for path in sorted(dimensions, key=lambda path: path.count("."))}


def proposes(study: Study, path: str, values: Mapping[str, Any]) -> bool:
    """Whether a dimension applies given the values proposed so far: a weight is not proposed without its path."""
    return applies(path, terms(study.base, _resolved(study, values)))


def trial_config(study: Study, values: Mapping[str, Any]) -> TrainConfig:
    """The config of a proposal (path -> number or label). Raises UserError where it is infeasible, because it is not
    valid or contradicts `requires` or `excludes`; the sampler then proposes again."""
    changes = _resolved(study, values)
    if clash := contradiction(terms(study.base, changes), study.requires, study.excludes):
        raise UserError(f"{study.name}: {clash}")
    config = _canonical(_build(study, changes, f"{study.name}: search"))
    return config.model_copy(update={"seed": study.seeds[0]})


def trial_run(study: Study, number: int, values: Mapping[str, Any]) -> Run:
    """A proposal as a run of the study, with the label of its trial."""
    config = trial_config(study, values)
    teacher = teacher_config(parse(study.recipe), config)
    return Run("trial", study.trial_name(number), config.seed, config, dict(values), teacher)


_DETERMINISTIC_FIELDS = ("deterministic", "batch", "stop", "eta", "min_epochs", "brackets", "startup")
"""Further fields on which the proposals of a deterministic search depend."""


def search_identity(study: Study) -> str:
    """12 hex digits that identify a search: they depend on its base, space, limits and metric, not on `trials`."""
    search = _search(study)
    space_of = {path: dimension.model_dump(mode="json") for path, dimension in search.space.items()}
    rules = [study.requires, study.excludes, study.seeds, search.metric, search.sampler, search.seed]
    told = {name: getattr(search, name) for name in ("against", "learn_from") if getattr(search, name)}
    told |= {"limits": study.limits.given} if study.limits.given else {}
    # Early stopping decides which results a deterministic search is given, and so its later proposals.
    judged = {name: getattr(search, name) for name in _DETERMINISTIC_FIELDS} if search.deterministic else {}
    return digest([study.base, space_of, *rules, *([told, judged] if told or judged else [])])


def start_points(study: Study) -> list[dict[str, Any]]:
    """The given points that a search proposes first; the sampler chooses the dimensions that a point leaves out."""
    dimensions = space(study)
    points = []
    for index, given in enumerate(_search(study).start):
        point = {}
        for path in given:
            if path not in dimensions:
                raise UserError(f"{study.name}: search.start.{index}: {unknown('dimension', path, dimensions)}")
        for path in (path for path in dimensions if path in given):
            try:
                point[path] = dimensions[path].proposal(given[path])
            except UserError as error:
                raise UserError(f"{study.name}: search.start.{index}: {path}: {error}") from None
        for path in point:
            if not proposes(study, path, point):
                raise UserError(
                    f"{study.name}: search.start.{index}: {path} does not apply, as its path is off; remove it"
                )
        points.append(point)
    return points


def check_space(study: Study) -> list[dict[str, Any]]:
    """Build a config at both ends, or at every choice, of each dimension, so that mistakes show before the first trial.

    Returns the proposals that were built. Raises UserError where one is not valid or a dimension never applies.
    """
    start_points(study)
    dimensions = space(study)
    switches = [path for path, dimension in dimensions.items() if _switches(path, dimension)]
    if odd := [path for path in switches if dimensions[path].kind != "choice"]:
        raise UserError(f"{study.name}: search.space: {odd[0]} is a path, not a number; write choice: [null, {{}}]")
    untried = {path: _ends(dimension) for path, dimension in dimensions.items() if path not in switches}
    points = []
    with located(f"{study.name}: search.space"):
        check_count({path: len(dimensions[path].choices) for path in switches})
    for labels in itertools.product(*(dimensions[path].choices for path in switches)):
        switched = dict(zip(switches, labels, strict=True))
        if contradiction(terms(study.base, _resolved(study, switched)), study.requires, study.excludes):
            continue
        while True:
            point = dict(switched)
            for path in untried:
                if proposes(study, path, point):
                    point[path] = untried[path].pop() if untried[path] else _ends(dimensions[path])[-1]
            trial_config(study, point)
            points.append(point)
            if not any(untried.get(path) for path in point):
                break
    if not points:
        raise UserError(f"{study.name}: search.space: every point contradicts `requires` or `excludes`")
    if unused := [path for path, ends in untried.items() if ends]:
        raise UserError(f"{study.name}: search.space: {unused[0]} never applies; its path is never switched on")
    return points


def _switches(path: str, dimension: Dimension) -> bool:
    """Whether a dimension decides if others apply: paths and losses, and choices of weights, which may contain 0."""
    root, *rest = path.split(".")
    return root in ("distill", "loss") and (len(rest) < 2 or (rest[1:] == ["weight"] and dimension.kind == "choice"))


def _ends(dimension: Dimension) -> list[Any]:
    if dimension.kind == "choice":
        return list(dimension.choices)
    return [int(end) if dimension.kind == "int" else end for end in (dimension.low, dimension.high)]


def _resolved(study: Study, values: Mapping[str, Any]) -> dict[str, Any]:
    dimensions = _search(study).space
    for path in values:
        if path not in dimensions:
            raise unknown("dimension", path, dimensions)
    return {path: dimensions[path].resolve(value) for path, value in values.items()}


def _search(study: Study) -> Search:
    if study.search is None:
        raise UserError(f"{study.name} has arms and no search space")
    return study.search
