"""TrainConfig: everything that changes a run's numbers, as one frozen, hashable value."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_serializer,
    model_validator,
)

from trainer.config.errors import UserError, explain
from trainer.config.input_files import with_home
from trainer.config.plain import digest
from trainer.config.plugin import Plugin
from trainer.config.text import UNPRINTABLE, check_name
from trainer.config.yaml_text import LARGEST


def _only_numbers(value: Any) -> Any:
    """Refuse text and truth values for a number. PyYAML reads `1e-5` (no dot) as text; the error says so."""
    if isinstance(value, bool):
        raise ValueError(f"a number is expected, not {str(value).lower()}")
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return value
        if "e" not in value.lower():
            raise ValueError(f"a number is expected, not the text {value!r}; remove the quotes")
        digits, exponent = value.lower().split("e", 1)
        dotted = digits if "." in digits else f"{digits}.0"
        signed = exponent if exponent[:1] in "+-" else f"+{exponent}"
        raise ValueError(f"YAML reads {value!r} as text, not as a number; write {dotted}e{signed}")
    return value


def is_recorded(info: ValidationInfo) -> bool:
    """Whether what is validated was written by an earlier version, perhaps under fewer rules."""
    return bool(info.context and info.context.get("recorded"))


def _check_name(name: str, info: ValidationInfo) -> str:
    return check_name(name, recorded=is_recorded(info))


def _check_path(path: str) -> str:
    """A path with `~` written out: both spellings are one run. Raises ValueError for one that no file system takes."""
    if not path.strip() or UNPRINTABLE.search(path):
        raise ValueError(f"a path must be one line of printable characters, but got {path[:LONGEST_PATH]!r}")
    if len(path) > LONGEST_PATH:
        raise ValueError(f"a path may have {LONGEST_PATH} characters, but got {len(path)}")
    return with_home(path)


def _check_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options as given. Raises ValueError for numbers that are not finite, and text that was meant as a number."""
    inside: list[Any] = [options]
    for value in inside:
        inside += value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"numbers must be finite, but got {value}")
        if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", value):
            _only_numbers(value)
    return options


MOST = 1_000_000
"""The largest count of epochs, or of samples in a batch."""
FLOAT32 = 3.4e38
"""The largest number in float32, which the networks compute with."""
LONGEST_PATH = 4096
LARGEST_SIDE = 16_384
"""Of an image, in pixels."""

Number = Annotated[float, BeforeValidator(_only_numbers)]
Integer = Annotated[int, BeforeValidator(_only_numbers)]
Count = Annotated[Integer, Field(ge=1, le=MOST)]
Seed = Annotated[Integer, Field(ge=0, le=LARGEST)]
Name = Annotated[str, AfterValidator(_check_name)]
FilePath = Annotated[str, AfterValidator(_check_path)]
Options = Annotated[dict[Name, Any], AfterValidator(_check_options)]
Normalize = Literal["unit", "imagenet"]
Precision = Literal["fp32", "tf32", "bf16"]
"""Of matrix products and convolutions: IEEE float32, TF32 (GPUs only), bfloat16 by torch's autocast."""


class Strict(BaseModel):
    """Frozen; an unknown key is an error that names its path."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


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


class OptimConfig(Strict):
    """AdamW with polynomial decay of `lr`. `global_batch` and `norm_batch` count samples."""

    lr: Number = Field(6.0e-5, gt=0, le=FLOAT32)
    weight_decay: Number = Field(0.01, ge=0, le=FLOAT32)
    decay_norms_and_biases: bool = False
    epochs: Count = 100
    global_batch: Count = 8
    norm_batch: Count | None = Field(None, description="samples per BatchNorm group; default: global_batch")
    schedule: Literal["to_end", "reference"] = "to_end"
    power: Number = Field(1.0, gt=0, le=100)
    precision: Precision = "fp32"

    @model_validator(mode="after")
    def _groups_fill_the_batch(self) -> OptimConfig:
        if self.norm_batch and self.global_batch % self.norm_batch:
            raise ValueError(
                f"norm_batch must divide global_batch ({self.global_batch}) but got {self.norm_batch}; "
                "choose one of its divisors"
            )
        return self

    @property
    def effective_norm_batch(self) -> int:
        """Samples in one BatchNorm group: `norm_batch`, or by default the global batch."""
        return self.norm_batch or self.global_batch

    def workers(self, given: int) -> int:
        """How many of `given` workers a step occupies: a worker needs a sample."""
        return min(given, self.global_batch)

    def micro_batches(self, workers: int) -> list[int]:
        """The samples that a forward pass of one of `workers` may hold, largest first."""
        share = self.global_batch // self.workers(workers)
        smaller = range(self.effective_norm_batch, share, self.effective_norm_batch)
        return [share, *(n for n in reversed(smaller) if share % n == 0)]

    def shares(self, workers: int, micro_batch: int | None) -> tuple[int, int]:
        """(samples of one worker per step, samples per forward pass).

        A BatchNorm group may be split over workers, but not over the forward passes of a worker. Raises UserError.
        """
        workers = self.workers(workers)
        if self.global_batch % workers:
            raise UserError(
                f"workers must divide optim.global_batch ({self.global_batch}) but got {workers}; change one of them"
            )
        share = self.global_batch // workers
        micro = min(micro_batch or share, share)
        if share % micro:
            raise UserError(f"micro_batch must divide the {share} samples a worker has per step but got {micro}")
        if micro < share and micro % self.effective_norm_batch:
            allowed = ", ".join(map(str, self.micro_batches(workers)))
            raise UserError(
                f"micro_batch {micro} would split BatchNorm groups of {self.effective_norm_batch} samples over "
                f"forward passes; with {workers} worker{'s' * (workers > 1)} take one of {allowed}, or set "
                f"optim.norm_batch to a divisor of {micro}"
            )
        return share, micro


class DataConfig(Strict):
    """A data set, the input `size` (height, width) in pixels, augmentation, normalisation and class weights."""

    name: Name = "scenes"
    size: tuple[Integer, Integer] = (96, 192)
    options: Options = Field(default_factory=dict)
    train_labels: Literal["full", "quarter"] = "full"
    augment: Literal["standard", "reference", "none"] = "standard"
    normalize: Normalize = "imagenet"
    class_weights: Literal["auto"] | tuple[Annotated[Number, Field(gt=0, le=FLOAT32)], ...] | None = None
    select: Number = Field(0.0, ge=0, lt=0.5, description="share of train held out for selecting variants")

    @model_validator(mode="after")
    def _size_fits_the_strides(self) -> DataConfig:
        for name, value in zip(("height", "width"), self.size, strict=True):
            if not 32 <= value <= LARGEST_SIDE or value % 4:
                raise ValueError(f"{name} must be a multiple of 4 from 32 to {LARGEST_SIDE} but got {value}")
        return self


class EvalConfig(Strict):
    """Validation. The first protocol is logged as `val/miou`, others as `val/<protocol>/miou`."""

    protocols: tuple[Literal["full", "paper"], ...] = ("full",)
    every: Count = Field(1, description="epochs between validations; the last epoch is always validated")

    @model_validator(mode="after")
    def _at_least_one(self) -> EvalConfig:
        if not self.protocols or len(set(self.protocols)) != len(self.protocols):
            raise ValueError("protocols must name each of full, paper at most once, and at least one")
        return self


class TeacherRecipe(Strict):
    """How a study trains its own teacher: the settings that differ from its base config. `init`: as of ModelConfig."""

    init: FilePath = "scratch"
    epochs: Count | None = None
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
    """One knowledge path in the loss: `weight` times the distiller built with `options`."""

    weight: Number = Field(1.0, ge=0, le=FLOAT32)
    options: Options = Field(default_factory=dict)


_FIELDS_ADDED_LATER: tuple[tuple[str, Any], ...] = (
    ("student.partial", False),
    ("teacher.normalize", None),
    ("teacher.precision", None),
    ("teacher.train.init", "scratch"),
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
    distill: dict[Name, Term] = Field(default_factory=dict)
    seed: Seed = 0
    plugins: tuple[Plugin, ...] = Field((), description="a file lists names; `with_plugins` makes records of them")

    @model_validator(mode="after")
    def _paths_need_a_teacher(self) -> TrainConfig:
        if self.active and self.teacher is None:
            raise ValueError(f"distill.{next(iter(self.active))} needs a teacher; add `teacher:` or remove the path")
        return self

    @model_validator(mode="after")
    def _tf32_is_of_the_process(self) -> TrainConfig:
        if self.optim.precision == "tf32" and self.teacher is not None and self.teacher.precision == "fp32":
            raise ValueError(
                "teacher.precision fp32 cannot be had beside optim.precision tf32, which holds for all float32 "
                "products of a process; remove teacher.precision"
            )
        return self

    @property
    def active(self) -> dict[str, Term]:
        """The knowledge paths with a weight above 0; the others are not built."""
        return {name: term for name, term in self.distill.items() if term.weight > 0}

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
    """The run that trains this config's teacher, or None when there is nothing to train."""
    if config.teacher is None or config.teacher.train is None:
        return None
    recipe = config.teacher.train
    changed = {k: v for k in ("epochs", "lr", "global_batch") if (v := getattr(recipe, k)) is not None}
    if "global_batch" in changed:
        changed["norm_batch"] = None
    return config.model_copy(
        update={
            "student": config.student.model_copy(
                update={"name": config.teacher.name, "init": recipe.init, "partial": False}
            ),
            "teacher": None,
            "distill": {},
            "optim": OptimConfig.model_validate({**config.optim.model_dump(), **changed}),
            "seed": recipe.seed,
        }
    )


def parse(data: Any, where: str = "config") -> TrainConfig:
    """A TrainConfig from plain data. Raises UserError naming the key, the rule and the value."""
    if not isinstance(data, dict):
        raise UserError(
            f"{where}: expected a mapping of sections (student, data, optim, ...), got {type(data).__name__}"
        )
    try:
        return TrainConfig.model_validate(data)
    except ValidationError as error:
        raise explain(error, where) from None
