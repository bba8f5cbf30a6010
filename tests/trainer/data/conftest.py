"""Folders of images and masks, made small."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.data.own_folder import image, mask, pair


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four pairs in train, two in val."""
    for seed, stem in enumerate(("a", "b", "c", "d")):
        pair(tmp_path / "data", "train", stem, seed)
    for seed, stem in enumerate(("e", "f")):
        pair(tmp_path / "data", "val", stem, 10 + seed)
    return tmp_path / "data"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Twelve frames of four videos in one folder, the masks beside them."""
    for at in range(12):
        name = f"video{at % 4}_{at:03d}"
        image(tmp_path / "flat" / f"{name}.png", at)
        mask(tmp_path / "flat" / f"{name}_mask.png")
    return tmp_path / "flat"
