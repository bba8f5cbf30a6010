"""The types of config fields: numbers, names, paths and options that say what is wrong with a value."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from trainer.config.input_files import with_home
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
Precision = Literal["fp32", "tf32", "bf16"]
"""Of matrix products and convolutions: IEEE float32, TF32 (GPUs only), bfloat16 by torch's autocast."""


class Strict(BaseModel):
    """Frozen; an unknown key is an error that names its path."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Scale(Strict):
    """Mean and deviation of each channel in train, of images from 0 to 1; `transkd data check` measures them."""

    mean: tuple[Annotated[Number, Field(ge=0, le=1)], ...] = Field(min_length=1)
    std: tuple[Annotated[Number, Field(gt=0, le=1)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_of_each(self) -> Scale:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels but std has {len(self.std)}; give one of each")
        return self

    def __str__(self) -> str:
        return f"mean {list(self.mean)}, std {list(self.std)}"


Normalize = Literal["unit", "imagenet"] | Scale
"""How images are scaled: to [0, 1], and then by ImageNet's or one's own mean and deviation."""


def plain_scale(normalize: Normalize) -> str | dict[str, Any]:
    """A normalisation as JSON."""
    return normalize.model_dump(mode="json") if isinstance(normalize, Scale) else normalize
