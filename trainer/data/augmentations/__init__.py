"""AUGMENTATIONS: name -> class of a step. Augmenter: all steps of a data section, applied to packed samples."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.config import DataConfig, UserError, located, unknown
from trainer.config.blame import blaming, named
from trainer.data.augmentations.base import Augmentation, Sample, Size, Sizes
from trainer.data.augmentations.blur import Blur
from trainer.data.augmentations.crop import Crop
from trainer.data.augmentations.flip import Flip
from trainer.data.augmentations.photometric import Photometric
from trainer.data.augmentations.scale import Scale
from trainer.data.augmentations.shift import Shift
from trainer.options import check_options

AUGMENTATIONS: dict[str, type[Augmentation]] = {
    "scale": Scale,
    "crop": Crop,
    "flip": Flip,
    "photometric": Photometric,
    "blur": Blur,
    "shift": Shift,
}

__all__ = ["AUGMENTATIONS", "Augmentation", "Sample", "build_steps", "sizes_after", "train_size"]


def build_steps(data: DataConfig) -> dict[str, Augmentation]:
    """The steps of `data.augment` by name, in their order; none where it is one of the paper's. Raises UserError."""
    found = {}
    for step in data.steps:
        where = f"data.augment.{step.name}"
        if step.name not in AUGMENTATIONS:
            raise UserError(f"data.augment: {unknown('step', step.name, AUGMENTATIONS)}")
        check_options(where, AUGMENTATIONS[step.name], step.options)
        with located(where), blaming():
            found[step.name] = AUGMENTATIONS[step.name](**step.options)
    return found


def sizes_after(data: DataConfig, steps: Mapping[str, Augmentation]) -> list[Sizes]:
    """The bounds of the sizes of samples after each step. Raises UserError for a step that cannot be applied."""
    sizes, found = Sizes(data.size, data.size), []
    for name, step in steps.items():
        with located(f"data.augment.{name}"), blaming():
            sizes = step.sizes(sizes)
            if not isinstance(sizes, Sizes):
                raise UserError(f"{named(step)}sizes() must give Sizes but gave {sizes!r}; return `given`")
        found.append(sizes)
    return found


def train_size(data: DataConfig) -> Size:
    """(height, width) of training images after all steps; evaluation has `data.size`.

    Raises UserError for an unknown step or option, and where samples of a batch would differ in size.
    """
    sizes = [Sizes(data.size, data.size), *sizes_after(data, build_steps(data))][-1]
    if sizes.smallest != sizes.largest:
        raise UserError(
            "data.augment: images of a batch must have one size, but end between "
            f"{sizes.smallest[0]}x{sizes.smallest[1]} and {sizes.largest[0]}x{sizes.largest[1]}; add crop after scale"
        )
    return sizes.smallest
