"""Scenes: synthetic road scenes with Cityscapes' 19 classes and layout, generated on disk."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from trainer.config import UserError, digest, read_yaml
from trainer.data.base import Facts, Official, cache_folder
from trainer.data.cityscapes import Cityscapes
from trainer.files.atomic import naming

PAINTER_VERSION = 1
"""Raised when the painter makes other pictures of the same options."""
MANIFEST = "scenes.json"
CITY = "synthetic"
DEFAULTS: dict[str, Any] = {"train": 240, "val": 60, "seed": 0, "size": (96, 192)}


class Scenes(Cityscapes):
    """Scenes generated from a seed, in the cache unless a folder of scenes is given."""

    needs_root: ClassVar[bool] = False

    def __init__(
        self,
        root: Path | None,
        *,
        cache: Path,
        train: int | None = None,
        val: int | None = None,
        seed: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        """`train` and `val` count images (default 240 and 60); `size` is (H, W) in pixels (default 96 x 192).

        Raises UserError for options out of range, and for a `root` whose scenes were made with other options.
        """
        chosen = _given(train=train, val=val, seed=seed, size=size)
        options = _checked(**DEFAULTS | chosen)
        if root is None:
            root = _cached(cache, options)
            if not root.exists():
                _write_at_once(root, options)
        else:
            made = _manifest(root)
            if any(made.get(name) != options[name] for name in ("painter", *chosen)):
                raise UserError(
                    f"the scenes in {root} were made with {made} but the options ask for {options}; "
                    "change data.options, or leave the folder out"
                )
            options = made
        super().__init__(root, cache=cache)
        height, width = options["size"]
        self.official = Official(options["train"], options["val"], (height, width))

    @classmethod
    def facts(cls, **options: Any) -> Facts:
        """Of all scenes. Raises UserError for options out of range."""
        _checked(**DEFAULTS | _given(**options))
        return super().facts()

    @classmethod
    def is_here(cls, root: Path | None, cache: Path, **options: Any) -> bool:
        """Whether the pictures have been made already."""
        return root is not None or _cached(cache, _checked(**DEFAULTS | _given(**options))).exists()

    @classmethod
    def expected_splits(cls, **options: Any) -> Official:
        """The splits that these options would generate."""
        chosen = _checked(**DEFAULTS | _given(**options))
        return Official(chosen["train"], chosen["val"], tuple(chosen["size"]))


def _cached(cache: Path, options: dict[str, Any]) -> Path:
    return cache / f"scenes-{digest(options)}"


def write_scenes(root: Path, *, train: int, val: int, seed: int, size: tuple[int, int]) -> None:
    """Write `train` and `val` images of (H, W) `size` with Cityscapes label ids below `root`, in Cityscapes' layout.

    Image i of a split is a function of (seed, split, i, size) only, not of the number of images.
    """
    from trainer.data.synthetic.painter import paint  # imports torch, which no reader of scenes needs

    options = _checked(train, val, seed, size)
    for split, count in (("train", train), ("val", val)):
        images, labels = (root / kind / split / CITY for kind in ("leftImg8bit", "gtFine"))
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, label = paint(seed, split, index, (size[0], size[1]))
            stem = f"{CITY}_{index:06d}_000019"
            with naming(root):
                Image.fromarray(image).save(images / f"{stem}_leftImg8bit.png", compress_level=1)
                Image.fromarray(label).save(labels / f"{stem}_gtFine_labelIds.png")
    (root / MANIFEST).write_text(json.dumps(options) + "\n", encoding="utf-8")


def _write_at_once(root: Path, options: dict[str, Any]) -> None:
    """Write to a temporary folder and rename it. Of several processes the first rename wins; their copies are equal."""
    temporary = cache_folder(root.parent) / f"{root.name}-{uuid.uuid4().hex}"
    temporary.mkdir()  # who may read a shared cache is decided by the user's umask
    try:
        write_scenes(temporary, **{name: options[name] for name in ("train", "val", "seed", "size")})
        try:
            temporary.rename(root)
        except OSError:
            if not root.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _given(**options: Any) -> dict[str, Any]:
    """The options but those that are null, which have their defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _checked(train: int, val: int, seed: int, size: tuple[int, int]) -> dict[str, Any]:
    """The options as plain data, with the painter's version. Raises UserError for values out of range."""
    for name, value, least in (("train", train, 1), ("val", val, 1), ("seed", seed, 0)):
        if type(value) is not int or value < least:
            raise UserError(f"data.options: {name} must be a whole number of at least {least} but got {value!r}")
    sides = list(size) if isinstance(size, list | tuple) else []
    if len(sides) != 2 or any(type(side) is not int or side < 32 for side in sides):
        raise UserError(f"data.options: size must be [height, width] of at least 32 pixels each but got {size!r}")
    return {"painter": PAINTER_VERSION, "train": train, "val": val, "seed": seed, "size": sides}


def _manifest(root: Path) -> dict[str, Any]:
    path = root / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{root} holds no {MANIFEST}, so it was not written as scenes; "
            "read a folder of this layout as the data set 'cityscapes'"
        )
    made = read_yaml(path)
    if not isinstance(made, dict) or set(made) != {"painter", *DEFAULTS}:
        raise UserError(f"{path} is damaged; write the scenes again, or read the folder as 'cityscapes'")
    return made
