"""DataConfig: the data set of a run, its input size, and how training images are augmented."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainer.config.fields import FLOAT32, LARGEST_SIDE, Integer, Name, Normalize, Number, Options, Strict


class Step(Strict):
    """One step of augmentation, with the options of its entry in AUGMENTATIONS. Written `NAME` or `{NAME: OPTIONS}`."""

    name: Name
    options: Options = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"name": data}
        if isinstance(data, dict) and data.keys() <= {"name", "options"}:
            return data
        if not isinstance(data, dict) or len(data) != 1:
            raise ValueError(
                f"a step is NAME or {{NAME: {{OPTION: VALUE}}}}, but got {data!r}; give each its own entry"
            )
        ((name, options),) = data.items()
        return {"name": name, "options": options or {}}


class DataConfig(Strict):
    """A data set, the input `size` (height, width) in pixels, augmentation, normalisation and class weights.

    `augment` is the paper's augmentation (`standard`), that of its code (`reference`), `none`, or a list of steps.
    """

    name: Name = "scenes"
    size: tuple[Integer, Integer] = (96, 192)
    options: Options = Field(default_factory=dict)
    train_labels: Literal["full", "quarter"] = "full"
    augment: Literal["standard", "reference", "none"] | Annotated[tuple[Step, ...], Field(min_length=1)] = "standard"
    normalize: Normalize = "imagenet"
    class_weights: Literal["auto"] | tuple[Annotated[Number, Field(gt=0, le=FLOAT32)], ...] | None = None
    select: Number = Field(0.0, ge=0, lt=0.5, description="share of train held out for selecting variants")

    @model_validator(mode="after")
    def _size_fits_the_strides(self) -> DataConfig:
        check_sides(self.size)
        return self

    @model_validator(mode="after")
    def _each_step_once(self) -> DataConfig:
        names = [step.name for step in self.steps]
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            raise ValueError(f"augment must have each step at most once, but has {twice[0]} twice; remove one")
        return self

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of `augment`, none where it is one of the paper's."""
        return () if isinstance(self.augment, str) else self.augment


def check_sides(size: tuple[int, int], of: str = "") -> None:
    """Raise ValueError unless a network can take images of `size` (height, width); `of` says whose sides they are."""
    for name, value in zip((f"{of}height", f"{of}width"), size, strict=True):
        if not 32 <= value <= LARGEST_SIDE or value % 4:
            raise ValueError(f"{name} must be a multiple of 4 from 32 to {LARGEST_SIDE} but got {value}")
