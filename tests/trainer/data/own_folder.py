"""A user's own folder, made small: its images and masks, and sections that say where they are and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.config import DataConfig
from trainer.data import SegDataset, open_dataset

CLASSES = ["ground", "road", "car"]
FOLDERS = {
    "images": {"train": "images/train", "val": "images/val"},
    "masks": {"train": "masks/train", "val": "masks/val"},
}
VIDEOS = {"images": "*.png", "masks": "*_mask.png"}
COLOURS = {"ground": [10, 20, 30], "car": [[0, 0, 255], [0, 0, 254]], "road": [128, 64, 128]}


def section(**options: Any) -> DataConfig:
    return DataConfig(name="folder", size=(32, 64), options={"classes": CLASSES, **options})


def opened(root: Path, **options: Any) -> SegDataset:
    return open_dataset(section(**options), root, root.parent / "cache")


def stems(root: Path, split: Any, **options: Any) -> list[str]:
    return [found.stem for found in opened(root, **options).pairs(split)]


def image(path: Path, seed: int = 0, size: tuple[int, int] = (40, 48)) -> Path:
    """(H, W) random RGB, in the format of the ending; `.npy` too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.save(path, pixels) if path.suffix == ".npy" else Image.fromarray(pixels).save(path, lossless=True)
    return path


def mask(path: Path, values: Any = None, size: tuple[int, int] = (40, 48)) -> Path:
    """(H, W) of 0, 1, 2 from left to right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = np.broadcast_to(np.arange(size[1]) * 3 // size[1], size).astype(np.uint8)
    np.save(path, values) if path.suffix == ".npy" else Image.fromarray(values).save(path, lossless=True)
    return path


def pair(root: Path, kind: str, stem: str, seed: int) -> None:
    image(root / "images" / kind / f"{stem}.png", seed)
    mask(root / "masks" / kind / f"{stem}.png")
