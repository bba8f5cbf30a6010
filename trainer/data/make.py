"""make_tree(): write a tiny, correct data set in the layout of any data set, for tests and demonstrations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from trainer.config import IGNORE, UserError
from trainer.data.base import SegDataset
from trainer.data.cityscapes import LABEL_IDS
from trainer.data.pairing import Split
from trainer.data.returned import INVALID, paths_of, table_of
from trainer.data.synthetic.canvas import IDS
from trainer.data.synthetic.painter import paint
from trainer.rng import generator

# The painter's classes -> their names in data sets with fewer classes.
OTHERWISE = {
    "vegetation": "tree",
    "traffic sign": "sign",
    "person": "pedestrian",
    "rider": "bicyclist",
    "bicycle": "bicyclist",
}
SHAPES = 12  # per image


def make_tree(dataset: SegDataset, *, train: int, val: int, seed: int, size: tuple[int, int]) -> None:
    """Write `train` and `val` pairs of (H, W) `size` below the data set's root, with the lists its layout keeps.

    Street scenes if the data set has classes of streets, else blobs in its colours; every label has ignored pixels.
    If the data set's images differ in size, every second image is in portrait format. Raises UserError for a folder
    that is not empty, and for a size below 32 pixels.
    """
    assert dataset.root is not None
    refuse_filled(dataset.root)
    table = table_of(dataset, dataset.root / paths_of(dataset, "train", 0)[1])
    if len(table) > 256 or (table == INVALID).all() or dataset.channels != 3:
        raise UserError(
            "only RGB images with masks of values from 0 to 255 can be made; give other data.options.classes, or "
            "images of your own"
        )
    if min(size) < 32:
        raise UserError(f"size must be at least 32 pixels each way but got {size[0]}x{size[1]}")
    street = {"road", "sky"} <= set(dataset.classes)
    stems: dict[Split, list[str]] = {"train": [], "val": []}
    splits: tuple[tuple[Split, int], ...] = (("train", train), ("val", val))
    for split, count in splits:
        for index in range(count):
            upright = dataset.official.size is None and index % 2 == 1
            shape = size[::-1] if upright else size
            picture = _street if street else _blobs
            image, label = picture(dataset, seed, split, index, shape)
            image_path, label_path = (dataset.root / name for name in paths_of(dataset, split, index))
            _save(image_path, Image.fromarray(image))
            _save(label_path, _indexed(dataset, label_path, label))
            stems[split].append(image_path.stem)
    for name, listed in dataset.lists(stems).items():
        path = dataset.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{stem}\n" for stem in listed), encoding="utf-8")


def refuse_filled(root: Path) -> None:
    """Raise UserError unless a folder is empty or does not exist."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root} is not an empty folder; choose an empty or new one")


def _street(
    dataset: SegDataset, seed: int, split: Split, index: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A synthetic scene, (H, W, 3), with its label in train ids of the data set, (H, W)."""
    image, ids = paint(seed, split, index, size)
    train_ids = np.full(256, IGNORE, np.uint8)
    for name, label_id in LABEL_IDS.items():
        known = name if name in dataset.classes else OTHERWISE.get(name)
        if known in dataset.classes:
            train_ids[label_id] = dataset.classes.index(known)
    ids[0] = IDS["rectification border"]
    return image, train_ids[ids]


def _blobs(
    dataset: SegDataset, seed: int, split: Split, index: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles and ellipses in the classes' colours under noise, (H, W, 3), and their label, (H, W).

    Classes are used in turn, so that a few images contain most of them.
    """
    rng = generator(seed, "blobs", split, index)
    height, width = size
    turn = index * (SHAPES + 1)
    mask = Image.new("L", (width, height), turn % len(dataset.classes))
    draw = ImageDraw.Draw(mask)
    for shape in range(SHAPES):
        top, left = rng.uniform(0, height * 0.8), rng.uniform(0, width * 0.8)
        box = (left, top, left + rng.uniform(8, width / 2), top + rng.uniform(8, height / 2))
        (draw.rectangle if shape % 2 else draw.ellipse)(box, fill=(turn + shape + 1) % len(dataset.classes))
    label = np.array(mask)
    colours = np.array(dataset.palette, np.float32)[label] * rng.uniform(0.7, 1.0)
    image = (colours + rng.normal(20, 12, (height, width, 3))).clip(0, 255).astype(np.uint8)
    label[0] = IGNORE
    return image, label


def _indexed(dataset: SegDataset, path: Path, label: np.ndarray) -> Image.Image:
    """A label in train ids as the file at `path` stores it: with the data set's own values and palette."""
    table = dataset.table(path)
    value = {train_id: int(np.flatnonzero(table == train_id)[0]) for train_id in (*range(len(dataset.classes)), IGNORE)}
    values = np.zeros(256, np.uint8)
    colours = np.zeros((256, 3), np.uint8)
    for train_id, stored in value.items():
        values[train_id] = stored
        if train_id != IGNORE:
            colours[stored] = dataset.palette[train_id]
    image = Image.fromarray(values[label])
    image.putpalette(colours.tobytes())
    return image


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95)  # PNG ignores quality
