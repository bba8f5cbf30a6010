"""Packing: what comes out is what was read, once for all processes, and again when a source changes."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.config import IGNORE, DataConfig, UserError
from trainer.data import open_dataset, pack
from trainer.data.scenes import Scenes, write_scenes

OPTIONS = {"train": 5, "val": 2, "size": [64, 128]}


def _config(height: int, width: int) -> DataConfig:
    return DataConfig(size=(height, width), options=OPTIONS)


def test_a_packed_split_is_what_the_data_set_reads(tmp_path: Path) -> None:
    config = _config(32, 64)
    data = open_dataset(config, None, tmp_path)
    packed, pairs = pack(data, config, "train", tmp_path), data.pairs("train")
    assert len(packed) == 5
    assert packed.stems == [pair.stem for pair in pairs]
    counts = np.zeros(19, np.int64)
    for i, pair in enumerate(pairs):
        image, label = data.read(pair)
        counts += np.bincount(label[label != IGNORE], minlength=19)
        np.testing.assert_array_equal(packed.native_label(i), label)
        np.testing.assert_array_equal(packed.sample(i)[1], label[1::2, 1::2])
        np.testing.assert_array_equal(
            packed.images([i])[0], np.asarray(Image.fromarray(image).resize((64, 32), Image.Resampling.BILINEAR))
        )
    np.testing.assert_array_equal(packed.class_counts, counts)
    picked = packed.images(np.array([4, 1]))
    assert (picked.shape, picked.dtype) == ((2, 32, 64, 3), np.uint8)
    np.testing.assert_array_equal(picked[1], packed.images([1])[0])


def test_at_its_own_size_nothing_is_resized_or_stored_twice(tmp_path: Path) -> None:
    config = _config(64, 128)
    data = open_dataset(config, None, tmp_path)
    packed = pack(data, config, "val", tmp_path)
    for i, pair in enumerate(data.pairs("val")):
        image, label = data.read(pair)
        np.testing.assert_array_equal(packed.images([i])[0], image)
        np.testing.assert_array_equal(packed.sample(i)[1], label)
        np.testing.assert_array_equal(packed.native_label(i), label)
    (file,) = (tmp_path / "packed").glob("*.arrow")
    assert file.stat().st_size < 2 * (64 * 128 * 4) * 1.2


def test_samples_are_views_of_the_file_that_nobody_can_write(tmp_path: Path) -> None:
    config = _config(64, 128)
    image, label = pack(open_dataset(config, None, tmp_path), config, "val", tmp_path).sample(0)
    for view in (image, label):
        assert not view.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0


def test_the_fingerprint_names_the_content_and_not_the_place_size_or_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_scenes(tmp_path / name, train=2, val=1, seed=0, size=(64, 128))
    cache = tmp_path / "cache"

    def fingerprint(name: str, size: tuple[int, int]) -> str:
        config = DataConfig(name="cityscapes", size=size)
        return pack(open_dataset(config, tmp_path / name, cache), config, "train", cache).fingerprint

    first = fingerprint("a", (64, 128))
    assert len(first) == 12
    assert fingerprint("b", (64, 128)) == fingerprint("a", (32, 64)) == first
    label = sorted((tmp_path / "b" / "gtFine" / "train").rglob("*.png"))[0]
    os.utime(label, (1, 1))
    assert fingerprint("b", (64, 128)) == first
    values = np.array(Image.open(label))
    values[0, 0] = 7 if values[0, 0] != 7 else 8
    Image.fromarray(values).save(label)
    assert fingerprint("b", (64, 128)) != first


def _pack(cache: Path, start: float) -> tuple[str, int]:
    config = _config(32, 64)
    data = open_dataset(config, None, cache)
    time.sleep(max(0.0, start - time.time()))
    packed = pack(data, config, "train", cache)
    return packed.fingerprint, int(packed.images(range(5)).sum())


def test_four_processes_pack_once(tmp_path: Path) -> None:
    reads = tmp_path / "reads"
    Scenes(None, cache=tmp_path, train=5, val=2, size=(64, 128))
    original = Scenes.read

    def counting(self: Scenes, pair: object) -> object:
        with reads.open("a") as file:
            file.write("x")
        time.sleep(0.02)
        return original(self, pair)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scenes, "read", counting)
        with multiprocessing.get_context("fork").Pool(4) as pool:
            answers = pool.starmap(_pack, [(tmp_path, time.time() + 0.3)] * 4)
    assert len(set(answers)) == 1
    assert len(reads.read_text()) == 5
    assert len(list((tmp_path / "packed").glob("*.arrow"))) == 1
    assert not list((tmp_path / "packed").glob("*.tmp"))


def test_a_second_opening_reads_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(32, 64)
    data = open_dataset(config, None, tmp_path)
    first = pack(data, config, "train", tmp_path)
    monkeypatch.setattr(Scenes, "read", None)
    assert pack(data, config, "train", tmp_path).fingerprint == first.fingerprint


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"cannot make the cache folder .*TRANSKD_CACHE"):
        open_dataset(_config(32, 64), None, tmp_path / "file" / "cache")
