"""TrainConfig: everything that changes a run's numbers, as one frozen, hashable value."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, field_serializer, model_validator

from trainer.config.data import DataConfig
from trainer.config.errors import UserError, explain, shown
from trainer.config.evaluation import EvalConfig
from trainer.config.fields import (
    FLOAT32,
    Count,
    FilePath,
    Name,
    Normalize,
    Number,
    Options,
    Precision,
    Seed,
    Strict,
)
from trainer.config.optim import ADDED_LATER, OptimConfig
from trainer.config.plain import digest
from trainer.config.plugin import Plugin
from trainer.config.recipes import with_recipe


class ModelConfig(Strict):
    """A network. `init` is `scratch`, or a checkpoint whose backbone is loaded; the head is always initialised anew.

    `partial` accepts a checkpoint that lacks parts of the backbone; they are initialised anew.
    """

    name: Name = "segformer_b0"
    init: FilePath = "scratch"
    partial: bool = False
    drop_path: Number = Field(0.1, ge=0, lt=1)
    dropout: Number = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _partial_of_something(self) -> ModelConfig:
        if self.partial and self.init == "scratch":
            raise ValueError("partial needs a checkpoint, but init is scratch; set init to a file or remove partial")
        return self


class TeacherRecipe(Strict):
    """How a study trains its own teacher: the settings that differ from its base config. `init`: as of ModelConfig."""

    init: FilePath = "scratch"
    epochs: Count | None = None
    iterations: Count | None = Field(None, description="as of optim; epochs without them are passes over the data")
    lr: Number | None = Field(None, gt=0, le=FLOAT32)
    global_batch: Count | None = None
    seed: Seed = 0


class TeacherConfig(Strict):
    """The frozen teacher: a checkpoint, or a recipe to train it.

    `miou` is the validation mIoU that the checkpoint must reach before distillation starts. `normalize` is the
    normalisation its weights were trained with, where that differs from `data.normalize`. `precision` is that of its
    forward passes beside a student; default: the run's, `optim.precision`.
    """

    name: Name = "segformer_b2"
    checkpoint: FilePath | None = None
    miou: Number | None = Field(None, ge=0, le=100)
    normalize: Normalize | None = None
    precision: Literal["fp32", "bf16"] | None = None
    train: TeacherRecipe | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> TeacherConfig:
        if (self.checkpoint is None) == (self.train is None):
            raise ValueError("a teacher needs either `checkpoint: FILE` or `train: {epochs: N}`, and not both")
        if self.train is not None and self.normalize is not None:
            raise ValueError(
                "normalize is for a checkpoint; a teacher trained by recipe uses data.normalize; remove it"
            )
        return self


class Term(Strict):
    """One summand of the loss: `weight` times the task loss or the knowledge path built with `options`."""

    weight: Number = Field(1.0, ge=0, le=FLOAT32)
    options: Options = Field(default_factory=dict)


_FIELDS_ADDED_LATER: tuple[tuple[str, Any], ...] = (
    ("student.partial", False),
    ("teacher.normalize", None),
    ("teacher.precision", None),
    ("teacher.train.init", "scratch"),
    ("eval.splits", ["val"]),
    ("eval.inference", "whole"),
    ("eval.window", None),
    ("eval.stride", None),
    ("eval.flip", False),
    ("eval.scales", [1.0]),
    *((f"optim.{name}", OptimConfig().model_dump()[name]) for name in ADDED_LATER),
    ("teacher.train.iterations", None),
    ("loss", {"ce": Term().model_dump()}),
    ("plugins", []),
)
"""(path, default) of fields added after the first ledgers: left out of the key at their default, so old keys stay."""


class TrainConfig(Strict):
    """Everything that determines one run. `key` is the hash of its canonical JSON: equal configs are the same run."""

    student: ModelConfig = ModelConfig()
    teacher: TeacherConfig | None = None
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    eval: EvalConfig = EvalConfig()
    loss: dict[Name, Term] = Field({"ce": Term()}, description="task losses; written out, they replace the default")
    distill: dict[Name, Term] = Field(default_factory=dict)
    seed: Seed = 0
    plugins: tuple[Plugin, ...] = Field((), description="a file lists names; `with_plugins` makes records of them")

    @model_validator(mode="after")
    def _paths_need_a_teacher(self) -> TrainConfig:
        if self.active and self.teacher is None:
            raise ValueError(f"distill.{next(iter(self.active))} needs a teacher; add `teacher:` or remove the path")
        return self

    @model_validator(mode="after")
    def _losses_are_told_apart(self) -> TrainConfig:
        if not self.active_losses:
            raise ValueError("loss must have a task loss with a weight above 0, such as `loss: {ce: {}}`")
        if both := self.loss.keys() & self.distill.keys():
            raise ValueError(f"{min(both)} is in loss and in distill; rename the knowledge path")
        return self

    @model_validator(mode="after")
    def _tf32_is_of_the_process(self) -> TrainConfig:
        if self.optim.precision == "tf32" and self.teacher is not None and self.teacher.precision == "fp32":
            raise ValueError(
                "teacher.precision fp32 cannot be had beside optim.precision tf32, which holds for all float32 "
                "products of a process; remove teacher.precision"
            )
        return self

    @model_validator(mode="after")
    def _window_fits_the_image(self) -> TrainConfig:
        window, size = self.eval.window, self.data.size
        if window is not None and (window[0] > size[0] or window[1] > size[1]):
            raise ValueError(
                f"eval.window must fit into data.size ({size[0]}x{size[1]}) but got {window[0]}x{window[1]}; lower it, "
                "or set eval.inference: whole"
            )
        return self

    @property
    def terms(self) -> dict[str, Term]:
        """The task losses and the knowledge paths."""
        return self.loss | self.distill

    @property
    def active(self) -> dict[str, Term]:
        """The knowledge paths with a weight above 0; the others are not built."""
        return {name: term for name, term in self.distill.items() if term.weight > 0}

    @property
    def active_losses(self) -> dict[str, Term]:
        """The task losses with a weight above 0; the others are not built."""
        return {name: term for name, term in self.loss.items() if term.weight > 0}

    @property
    def teacher_precision(self) -> Precision:
        """The precision of the teacher's forward passes: its own, or by default the run's."""
        return (self.teacher and self.teacher.precision) or self.optim.precision

    @property
    def used_plugins(self) -> tuple[Plugin, ...]:
        """The plugins that define a name of this config, ordered by name."""
        return tuple(sorted((p for p in self.plugins if p.is_used(self)), key=lambda plugin: plugin.name))

    @field_serializer("plugins")
    def _records(self, _: tuple[Plugin, ...]) -> list[dict[str, Any]]:
        return [plugin.plain(whole=False) for plugin in self.used_plugins]

    def whole(self) -> dict[str, Any]:
        """As JSON with the text of its plugins: all that another process needs to compute it."""
        return {**self.model_dump(mode="json"), "plugins": [plugin.plain(whole=True) for plugin in self.used_plugins]}

    @property
    def key(self) -> str:
        """12 hex digits that identify the config."""
        asked = self.model_dump(mode="json", exclude={"plugins"})
        asked["plugins"] = sorted(plugin.sha256 for plugin in self.used_plugins)
        for path, default in _FIELDS_ADDED_LATER:
            *sections, name = path.split(".")
            found: Any = asked
            for section in sections:
                found = found and found[section]
            if found and found[name] == default:
                del found[name]
        return digest(asked)


def teacher_run(config: TrainConfig) -> TrainConfig | None:
    """The run that trains this config's teacher, None when there is nothing to train. Raises UserError."""
    if config.teacher is None or config.teacher.train is None:
        return None
    recipe = config.teacher.train
    names = ("epochs", "iterations", "lr", "global_batch")
    changed: dict[str, Any] = {name: v for name in names if (v := getattr(recipe, name)) is not None}
    if recipe.epochs is not None and recipe.iterations is None:
        changed["iterations"] = None
    if "global_batch" in changed:
        changed["norm_batch"] = None
    try:
        optim = OptimConfig.model_validate({**config.optim.model_dump(), **changed})
    except ValidationError as error:  # of two settings of the base, one of which the recipe changes
        raise UserError(f"teacher.train: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return config.model_copy(
        update={
            "student": config.student.model_copy(
                update={"name": config.teacher.name, "init": recipe.init, "partial": False}
            ),
            "teacher": None,
            "distill": {},
            "optim": optim,
            "seed": recipe.seed,
        }
    )


def parse(data: Any, where: str = "config") -> TrainConfig:
    """A TrainConfig from plain data, perhaps with a recipe. Raises UserError naming the key, the rule and the value."""
    if not isinstance(data, dict):
        given = "an empty file" if data is None else shown(data)
        raise UserError(f"{where}: expected a mapping of sections (student, data, optim, ...), but got {given}")
    try:
        return TrainConfig.model_validate(with_recipe(data))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except ValidationError as error:
        raise explain(error, where) from None
