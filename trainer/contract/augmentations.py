"""The contract of a step of augmentation: each check takes a name and raises ContractError.

Letters: H and W height and width, C channels.
"""

from __future__ import annotations

import inspect
import itertools

import numpy as np

from trainer.config import IGNORE, counted
from trainer.config.blame import plugin_of, told
from trainer.contract.memory import FORGET, remembered
from trainer.contract.promise import Checks, require, require_first
from trainer.data.augmentations import AUGMENTATIONS, Augmentation, Sample
from trainer.data.augmentations.base import Sizes, flaw_of

SIZE = (64, 96)
CLASSES = 5
DRAWS = 8
"""How many samples are augmented in a check."""


FOLLOWS = 0.5
"""The share that classes must explain of an image: ours leave 0.8 or more, a flip of the image alone 0.1 to 0.3."""
BLOCK = 16
"""Pixels of the side of a block of one class in `coded`."""


def sample(seed: int, channels: int = 3) -> Sample:
    """A random image (H, W, C) with a label of CLASSES and IGNORE."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, SIZE, dtype=np.uint8)
    label[0] = IGNORE
    image = rng.integers(0, 256, (*SIZE, channels), dtype=np.uint8)
    return Sample(image, label, np.full(channels, 124, np.uint8))


def coded(seed: int) -> Sample:
    """Blocks of random classes, and an image in which each class has its colour."""
    blocks = np.random.default_rng(seed).integers(0, CLASSES, (SIZE[0] // BLOCK, SIZE[1] // BLOCK), dtype=np.uint8)
    label = blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)
    return Sample(np.stack([25 + 40 * label, 30 + 45 * label, 35 + 50 * label], -1), label, np.full(3, 124, np.uint8))


def explained(found: Sample) -> float:
    """The share of an image's variance over the labelled pixels that their classes explain: 1 where each class has one
    colour, whatever colours; 1 also where there is nothing to explain."""
    labelled = found.label != IGNORE
    colours, classes = found.image[labelled].astype(np.float64), found.label[labelled]
    total = float(((colours - colours.mean(0)) ** 2).sum()) if len(colours) else 0.0
    if total < len(colours):  # an image of one colour
        return 1.0
    each = (colours[classes == k] for k in np.unique(classes))
    return 1.0 - sum(float(((own - own.mean(0)) ** 2).sum()) for own in each) / total


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
        require_first(has, f"its option {option} has no default; give one")


def gives_images_and_labels(name: str) -> None:
    """Image (H, W, C) and label (H, W), uint8, of one size that sizes() allows, and no class that was not there."""
    bounds = step(name).sizes(Sizes(SIZE, SIZE))
    for number in range(DRAWS):
        given, out = augmented(name, number)
        flaw = flaw_of(out, given, bounds)
        require_first(not flaw, flaw)
        strange = set(np.unique(out.label).tolist()) - {*range(CLASSES), IGNORE}
        require(not strange, f"a label holds {sorted(strange)}, which were not there; move labels without mixing them")


def draws_from_what_it_is_given(name: str) -> None:
    """Equal samples and equal generators give equal results, of a new step and of one that has been used."""
    used = step(name)
    for number in [*range(DRAWS), *reversed(range(DRAWS))]:
        one, other = augmented(name, number)[1], augmented(name, number)[1]
        again = used(sample(number), np.random.default_rng(number))
        require_first(_equal(one, other), "equal draws give other images; draw all numbers from `draw`")
        require_first(_equal(one, again), f"equal draws give other images after other samples; {FORGET}")
    changed = remembered(used, lambda: used(sample(0), np.random.default_rng(0)))
    require(not changed, f"each call changes its {', '.join(changed)}; {FORGET}")


def changes_no_input(name: str) -> None:
    """The arrays that it is given stay as they are."""
    for number in range(DRAWS):
        given, _ = augmented(name, number)
        require(_equal(given, sample(number)), "it changes the arrays that it is given; compute on copies")


def takes_any_channels(name: str) -> None:
    """Images have as many channels as the data set: 1 to 64."""
    bounds = step(name).sizes(Sizes(SIZE, SIZE))
    for channels, number in itertools.product((1, 4), range(DRAWS)):
        given, flaw = sample(number, channels), ""
        try:
            flaw = flaw_of(step(name)(given, np.random.default_rng(number)), given, bounds)
        except Exception as error:
            flaw = told(error, plugin_of(step(name)))
        what = f"of an image with {counted(channels, 'channel')}: {flaw}"
        require(not flaw, f"{what}; return the sample where the step does not apply")


def moves_image_and_label_alike(name: str) -> None:
    """What each class looks like stays together with its label."""
    for number in range(DRAWS):
        found = step(name)(coded(number), np.random.default_rng(number))
        require(
            explained(found) > FOLLOWS,
            "its image no longer shows what its label says: it moves one of the two, or covers most of the image; "
            "change both alike",
        )


def _equal(one: Sample, other: Sample) -> bool:
    return all(map(np.array_equal, one, other))


CHECKS: Checks[str] = {
    "options have defaults": has_defaults,
    "images and labels have shape, dtype and classes, and a size that sizes() allows": gives_images_and_labels,
    "what it is given stays as it is": changes_no_input,
    "random numbers come from draw, and nothing is remembered": draws_from_what_it_is_given,
    "images of any number of channels": takes_any_channels,
    "image and label change alike": moves_image_and_label_alike,
}
