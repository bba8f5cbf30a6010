"""fit on a folder of images: bad data is named before anything is written, and no run lies among the images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.data.scenes import write_scenes

Make = Callable[..., Any]


def cityscapes(root: Path) -> Path:
    """A small folder in the layout of Cityscapes."""
    write_scenes(root, train=4, val=1, seed=0, size=(64, 128))
    return root


def without_label(root: Path) -> None:
    sorted(root.glob("gtFine/train/*/*.png"))[1].unlink()


def with_strange_label(root: Path) -> None:
    path = sorted(root.glob("gtFine/train/*/*.png"))[1]
    label = np.array(Image.open(path))
    label[5, 7] = 77
    Image.fromarray(label).save(path)


def with_broken_image(root: Path) -> None:
    path = sorted(root.glob("leftImg8bit/train/*/*.png"))[1]
    path.write_bytes(path.read_bytes()[:200])


def with_a_pipe(root: Path) -> None:
    path = sorted(root.glob("leftImg8bit/train/*/*.png"))[1]
    path.unlink()
    os.mkfifo(path)


def with_another_size(root: Path) -> None:
    path = sorted(root.glob("gtFine/train/*/*.png"))[1]
    Image.open(path).resize((64, 32), Image.Resampling.NEAREST).save(path)


def without_val(root: Path) -> None:
    (root / "leftImg8bit" / "val").rename(root / "leftImg8bit" / "valid")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_label, "000001_000019_leftImg8bit.png; add the label or remove the image"),
        (with_strange_label, "holds 77 at row 5, column 7 (1 such pixels) but may hold"),
        (with_broken_image, "000001_000019_leftImg8bit.png"),
        (with_a_pipe, "000001_000019_leftImg8bit.png is a pipe, and only files can be read"),
        (with_another_size, "is 128x64 but its label"),
        (without_val, "leftImg8bit/val; expected the layout"),
    ],
)
def test_bad_data_is_named_before_anything_is_written(
    damage: Callable[[Path], None], message: str, written: Make, command: Make, tmp_path: Path
) -> None:
    root = cityscapes(tmp_path / "city")
    damage(root)
    config = written({}, {"data.name": "cityscapes", "data.options": {}})
    code, said, errors = command("fit", config, "--out", tmp_path / "run", "--data-root", root)
    assert (code, said) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_lies_outside_the_folders_of_its_images(written: Make, command: Make, tmp_path: Path) -> None:
    root = cityscapes(tmp_path / "city")
    config = written({}, {"data.name": "cityscapes", "data.options": {}})
    folder = next(root.glob("leftImg8bit/train/*"))
    (tmp_path / "link").symlink_to(folder)
    for out in (folder, folder / "run", tmp_path / "link", tmp_path / "link" / "run"):
        code, _, errors = command("fit", config, "--out", out, "--data-root", root)
        assert (code, len(errors.splitlines())) == (2, 1)
        assert f"--out {out} lies in {folder}, whose files are the data; choose another folder" in errors
    assert {path.suffix for path in folder.iterdir()} == {".png"}
