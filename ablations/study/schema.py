"""Study: the schema of a study's YAML file, and how it is found and read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo, model_validator

from ablations.study.arms import (
    Arms,
    Overrides,
    contradiction,
    grid,
    labelled,
    leave_one_out,
    refuse_lookalikes,
    refuse_same_look,
    terms,
)
from ablations.study.consistency import check_kind, check_names, check_paths, check_teachers
from ablations.study.grid_points import grid_points
from ablations.study.limits import Limits
from ablations.study.metric import check_metric
from ablations.study.published import Published
from ablations.study.search import Search
from ablations.study.seeds import MAX_SEEDS, expand_count, increasing, refuse_repeated, split_looks
from ablations.study.tune_each import TuneEach
from trainer.config import (
    LONGEST_NAME,
    Integer,
    Name,
    Number,
    Seed,
    Strict,
    TrainConfig,
    UserError,
    check_name,
    explain,
    is_recorded,
    located,
    parse,
    parse_yaml,
    read_text,
    shown,
    unknown,
    with_recipe,
)
from trainer.config.input_files import check_regular
from trainer.config.plugin_sources import resolve


def _name_or_none(name: str, info: ValidationInfo) -> str:
    return check_name(name, recorded=is_recorded(info)) if name else name


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(
            "the name is also that of a folder and may have letters, digits, '_', '.' and '-', the first a letter or a "
            f"digit, but got {shown(name)}; rename the study"
        )
    return name


class Study(Strict):
    """One question: a base config, what varies in it, the seeds, and what is compared with what.

    What varies is one of `variants` (named overrides), `factors` (a full grid) and `search`. `leave_one_out` adds one
    arm for each entry of a mapping of the base, without that entry; it may also stand without variants. `tune_each`
    tunes every variant before its seeds run; `limits` bounds the cost of the deployed student.
    """

    name: Annotated[str, AfterValidator(_folder_name)] = Field(max_length=LONGEST_NAME)
    plugins: tuple[Name, ...] = Field((), description="Python files beside the study; `read` puts them into `base`")
    base: Annotated[dict[Name, Any], BeforeValidator(with_recipe)]
    variants: dict[Name, Overrides] | None = Field(None, min_length=1)
    factors: dict[Name, Annotated[dict[Name, Any], BeforeValidator(labelled)]] | None = Field(None, min_length=1)
    search: Search | None = None
    leave_one_out: Name | None = None
    tune_each: TuneEach | None = None
    limits: Limits = Limits()
    requires: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    excludes: tuple[tuple[Name, ...], ...] = ()
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(expand_count), AfterValidator(refuse_repeated)] = (0,)
    looks: Annotated[tuple[Integer, ...], AfterValidator(increasing)] = Field(
        (), description="as `seeds: {looks: [6, 8, 12], until: decided}` gives them"
    )
    teachers: Integer = Field(1, ge=1, le=MAX_SEEDS, description="trained by each recipe; seeds take them in turn")
    reference: Annotated[str, AfterValidator(_name_or_none)] = Field("", description="default: the first arm")
    contrasts: tuple[tuple[Name, Name], ...] = Field(
        (), description="[arm, its reference]; default: all to `reference`"
    )
    margin: Number | None = Field(None, gt=0, le=100, description="equivalence margin, in points of the metric")
    metric: Name = Field("val/miou", description="of the last epoch; higher is better")
    published: Published | None = None

    @model_validator(mode="before")
    @classmethod
    def _expand_looks(cls, data: Any) -> Any:
        return split_looks(data)

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Study:
        base = parse(self.base, "base")
        check_metric(self.metric, base)
        if searched := self.search or self.tune_each:
            searched.check_rungs(base.optim.epochs, base.eval.every)
        check_kind(self)
        check_paths(self)
        if self.search is None:
            check_names(self)
        elif self.search.sampler == "grid":
            points = grid_points(self.base, self.search, self.requires, self.excludes)
            whole = self.search.model_copy(update={"trials": self.search.trials or len(points)})
            # The number of grid points depends on the study's base, so `search` gets its `trials` here.
            object.__setattr__(self, "search", whole)
        if self.tune_each is not None:
            self.tune_each.check(self.base, self.compared.overrides, self.seeds)
        if self.teachers > 1:
            check_teachers(self)
        if not is_recorded(info):
            refuse_same_look(self.compared.overrides)
        return self

    @cached_property
    def compared(self) -> Arms:
        """The arms, in the order of the table."""
        if self.search is not None:
            return Arms({}, 0)
        if self.factors is not None:
            with located("factors"):
                found = grid(self.base, self.factors, self.requires, self.excludes)
                refuse_lookalikes(found.overrides)
                return found
        arms = dict(self.variants or {"base": {}})
        whole = next((name for name, changes in arms.items() if not changes), "base")
        added = leave_one_out(self.base, self.leave_one_out, whole) if self.leave_one_out else {}
        for name, changes in (arms | added).items():
            if clash := contradiction(terms(self.base, changes), self.requires, self.excludes):
                raise UserError(f"variants.{name}: {clash}")
        if twice := arms.keys() & added.keys():
            raise UserError(f"variants.{min(twice)}: leave_one_out adds an arm of this name; drop one of the two")
        with located("variants"):
            refuse_lookalikes(arms | added)
        return Arms(arms | added, 0)

    @property
    def recipe(self) -> dict[str, Any]:
        """The base config whose settings train the teachers."""
        return self.base

    def trial_name(self, number: int) -> str:
        """The label of a trial of this search."""
        return f"trial {number}"

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The contrasts: (arm, the arm it is compared with)."""
        if self.contrasts or self.search is not None:
            return self.contrasts
        names = list(self.compared.overrides)
        reference = self.reference or names[0]
        return tuple((name, reference) for name in names if name != reference)


def read(
    text: str,
    where: str,
    *,
    recorded: bool = False,
    folder: Path = Path(),
    plugins: Sequence[Mapping[str, Any]] | None = None,
) -> Study:
    """A study from the text of its YAML. Raises UserError naming `where`, the key, the rule and the value.

    `recorded` is for a study out of a store or bundle: its names follow the rules of the version that took them, and
    `plugins` are those of its last launch. The plugins of other studies are files of `folder` and installed packages.
    """
    data = parse_yaml(text, where)
    try:
        if not isinstance(data, dict):
            given = "an empty file" if data is None else shown(data)
            raise UserError(f"expected a mapping with name, base and variants, but got {given}")
        if stray := sorted(data.keys() & {"retries", "price_per_gpu_hour", "tracking"}):
            raise UserError(f"{stray[0]}: belongs to a cluster, not to a study; write it in the file of --cluster")
        if "base" not in data and data and data.keys() - {"recipe"} <= TrainConfig.model_fields.keys():
            raise UserError("this is the config of one run, not a study; train it with `python -m trainer fit`")
        if data and not data.keys() & {"name", "base"}:
            found = ", ".join(map(str, list(data)[:3]))
            raise UserError(f"this is no study: it has neither name nor base, but {found}; give the file of a study")
        return Study.model_validate(_with_plugins(data, folder, plugins), context={"recorded": recorded})
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"]:
            raise explain(error, where) from None
        raise UserError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _with_plugins(data: dict[str, Any], folder: Path, known: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """A study's plain data with the records of its plugins in its base, which may list files too."""
    base = data.get("base")
    if not isinstance(base, dict):
        return data
    if known is None:
        lists = [found for section in (data, base) if (found := section.get("plugins")) is not None]
        listed = lists[0] if len(lists) == 1 else [item for one in lists for item in one]
        known = [plugin.plain(whole=True) for plugin in resolve(listed, folder)]
    return {**data, "base": {**base, "plugins": known}} if known or "plugins" in base else data


def packaged() -> tuple[str, ...]:
    """Names of the packaged studies."""
    return tuple(sorted(f.name.removesuffix(".yaml") for f in _packaged_files()))


def load(name: str | Path) -> Study:
    """The packaged study of this name, or that of a YAML file. Raises UserError where there is none, or it is wrong."""
    return read(*source(name), folder=Path(name).parent)


def source(name: str | Path) -> tuple[str, str]:
    """The text of a study's YAML and the name of its file. Raises UserError where there is none."""
    path = Path(name)
    check_regular(path)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return read_text(path), str(path)
    for file in _packaged_files():
        if file.name == f"{name}.yaml":
            return file.read_text(encoding="utf-8"), file.name
    raise unknown("study", str(name), packaged())


def _packaged_files() -> Iterable[Any]:
    return [f for f in resources.files("ablations.studies").iterdir() if f.name.endswith(".yaml")]
