"""The contract of a step of augmentation: each check takes a name and raises ContractError.

Letters: H and W height and width, C channels.
"""

from __future__ import annotations

import inspect

import numpy as np

from trainer.config import IGNORE
from trainer.contract.promise import Checks, require
from trainer.data.augmentations import AUGMENTATIONS, Augmentation, Sample
from trainer.data.augmentations.base import Sizes

SIZE = (64, 96)
CLASSES = 5
DRAWS = 8
"""How many samples are augmented in a check."""


def sample(seed: int) -> Sample:
    """A random image (H, W, 3) with a label of CLASSES and IGNORE."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, SIZE, dtype=np.uint8)
    label[0] = IGNORE
    return Sample(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8), label, np.full(3, 124, np.uint8))


def augmented(name: str, number: int) -> tuple[Sample, Sample]:
    """A sample, and the same after the step with its defaults."""
    given = sample(number)
    return given, step(name)(given, np.random.default_rng(number))


def step(name: str) -> Augmentation:
    """The step with its defaults; one that needs a size to end at is given one."""
    needed = inspect.signature(AUGMENTATIONS[name]).parameters.get("size")
    return AUGMENTATIONS[name](**({"size": [32, 48]} if needed and needed.default is needed.empty else {}))


def has_defaults(name: str) -> None:
    """Every option but `size` has a default."""
    for option, parameter in inspect.signature(AUGMENTATIONS[name]).parameters.items():
        has = parameter.default is not parameter.empty or option == "size"
        require(has, f"its option {option} has no default; give one")


def gives_images_and_labels(name: str) -> None:
    """Image (H, W, C) and label (H, W), uint8 and of one size, and no class that was not there."""
    for number in range(DRAWS):
        _, out = augmented(name, number)
        require(out.image.dtype == out.label.dtype == np.uint8, "image and label must stay uint8; round and clip them")
        same = out.image.shape == (*out.label.shape, 3)
        require(same, f"the image has shape {out.image.shape}, but its label {out.label.shape}; change both alike")
        strange = set(np.unique(out.label).tolist()) - {*range(CLASSES), IGNORE}
        require(not strange, f"a label holds {sorted(strange)}, which were not there; move labels without mixing them")


def states_its_sizes(name: str) -> None:
    """sizes() has the bounds of what comes out."""
    bounds = step(name).sizes(Sizes(SIZE, SIZE))
    for number in range(DRAWS):
        size = augmented(name, number)[1].label.shape
        within = all(low <= side <= high for low, side, high in zip(bounds.smallest, size, bounds.largest, strict=True))
        require(within, f"an image became {size[0]}x{size[1]}, which sizes() does not allow; let it say all sizes")


def changes_no_input(name: str) -> None:
    """The arrays that it is given stay as they are."""
    for number in range(DRAWS):
        given, _ = augmented(name, number)
        fresh = sample(number)
        require(all(map(np.array_equal, given, fresh)), "it changes the arrays that it is given; compute on copies")


def draws_from_what_it_is_given(name: str) -> None:
    """Equal samples and equal generators give equal results."""
    for number in range(DRAWS):
        one, other = augmented(name, number)[1], augmented(name, number)[1]
        require(all(map(np.array_equal, one, other)), "equal draws give other images; draw all numbers from `draw`")


CHECKS: Checks[str] = {
    "options have defaults": has_defaults,
    "images and labels have shape, dtype and classes": gives_images_and_labels,
    "sizes() has the bounds of what comes out": states_its_sizes,
    "what it is given stays as it is": changes_no_input,
    "random numbers come from draw": draws_from_what_it_is_given,
}
