"""Packing: what comes out is what was read, once for all processes, and again when a source changes."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from trainer.config import IGNORE, DataConfig, UserError, digest
from trainer.data import SegDataset, open_dataset, pack, pack_splits
from trainer.data.check import damaged_packs
from trainer.data.packs import pack_files, packing
from trainer.data.packs.pack_files import PackFiles
from trainer.data.packs.pack_rows import PICTURE, SOURCE_CHECK, checksum, is_damaged
from trainer.data.packs.packed import packed_fingerprint
from trainer.data.pairing import Pair
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
    files = list((tmp_path / "packed").glob("*.arrow"))
    assert sum(file.stat().st_size for file in files) < 2 * (64 * 128 * 4) * 1.2


@pytest.mark.slow
def test_samples_are_views_of_the_file_that_nobody_can_write(tmp_path: Path) -> None:
    config = _config(64, 128)
    image, label = pack(open_dataset(config, None, tmp_path), config, "val", tmp_path).sample(0)
    for view in (image, label):
        assert not view.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert len(list((tmp_path / "packed").glob("*.arrow"))) == 2, "samples and native labels"
    assert not list((tmp_path / "packed").glob(".*"))


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


def _cityscapes(tmp_path: Path, train: int = 5, size: tuple[int, int] = (32, 64)) -> tuple[DataConfig, SegDataset]:
    write_scenes(tmp_path / "city", train=train, val=1, seed=0, size=(64, 128))
    config = DataConfig(name="cityscapes", size=size)
    return config, open_dataset(config, tmp_path / "city", tmp_path)


def _sizes(cache: Path) -> dict[str, int]:
    """Bytes of the files of train, by kind."""
    found = [path for path in (cache / "packed").glob("*.arrow") if "train" in path.name]
    kinds = {kind: [path for path in found if f"-{kind}-" in path.name] for kind in ("samples", "natives")}
    return {kind: sum(path.stat().st_size for path in paths) for kind, paths in kinds.items()}


def test_labels_that_nobody_reads_are_not_packed_until_somebody_does(tmp_path: Path) -> None:
    config, data = _cityscapes(tmp_path)
    lean = pack(data, config, "train", tmp_path, native=False)
    assert _sizes(tmp_path)["natives"] == 0
    with pytest.raises(AssertionError, match="without native labels"):
        lean.native_label(0)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "packed").glob("*samples*")}
    full = pack(data, config, "train", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "images are not packed again"
    assert _sizes(tmp_path)["natives"] > 5 * 64 * 128
    assert full.fingerprint == lean.fingerprint == packed_fingerprint(data, config, "train", tmp_path)
    for i, pair in enumerate(data.pairs("train")):
        np.testing.assert_array_equal(full.native_label(i), data.read(pair)[1])
        for ours, theirs in zip(full.sample(i), lean.sample(i), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_pack_of_an_earlier_version_is_found_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds all columns in one file, whose name has not changed."""
    config, data = _cityscapes(tmp_path)
    ours = pack(data, config, "train", tmp_path)
    (samples,), (natives,) = ((tmp_path / "packed").glob(f"*{kind}*") for kind in ("samples", "natives"))
    whole = samples.with_name(samples.name.partition("-samples-")[0] + ".arrow")
    parts = [pa.ipc.open_file(str(path)).read_all() for path in (samples, natives)]
    columns = [column for part in parts for column in part.columns]
    fields = [field for part in parts for field in part.schema]
    schema = pa.schema(fields, metadata=parts[0].schema.metadata)
    with pa.ipc.new_file(str(whole), schema) as writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=schema), max_chunksize=1)
    samples.unlink()
    natives.unlink()
    monkeypatch.setattr(type(data), "read", None)
    for native in (True, False):
        old = pack(data, config, "train", tmp_path, native=native)
        assert old.fingerprint == ours.fingerprint == packed_fingerprint(data, config, "train", tmp_path)
        for i in range(5):
            np.testing.assert_array_equal(old.native_label(i), ours.native_label(i))
            np.testing.assert_array_equal(old.images([i]), ours.images([i]))
    assert not list((tmp_path / "packed").glob("*samples*"))


def test_a_pack_without_digests_of_pictures_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data = _cityscapes(tmp_path)
    ours = pack(data, config, "train", tmp_path, native=False)
    assert None not in ours.pictures and len(set(ours.pictures)) == 5
    (file,) = (tmp_path / "packed").glob("*samples*")
    table = pa.ipc.open_file(str(file)).read_all().drop_columns([PICTURE])
    short = zip(*(table[name].to_pylist() for name in ("stem", "source", "counts")), strict=True)
    checks = pa.array([checksum([stem.encode(), *rest]) for stem, *rest in short], pa.uint32())
    table = table.set_column(table.schema.names.index(SOURCE_CHECK), SOURCE_CHECK, checks)
    file.unlink()
    with pa.ipc.new_file(str(file), table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    monkeypatch.setattr(type(data), "read", None)
    old = pack(data, config, "train", tmp_path, native=False)
    assert (old.fingerprint, old.sources, old.pictures) == (ours.fingerprint, ours.sources, [None] * 5)


def test_the_name_of_a_pack_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """Else every store would pack again. Paths and times of files enter it, so they are fixed here."""
    pair = Pair("a", Path("/dev/null"), Path("/dev/null"))
    config = DataConfig(name="cityscapes", size=(32, 64))
    files = PackFiles(config, "train", [pair], tmp_path)
    status = Path("/dev/null").stat()
    listing = [["a", "/dev/null", status.st_size, status.st_mtime_ns]] * 2
    asked = {"name": "cityscapes", "options": {}, "size": [32, 64]}
    key = digest({"version": 2, "asked": asked, "split": "train", "files": listing})
    assert files.whole == tmp_path / f"cityscapes-train-{key}.arrow"


KILLED = """
import os, signal, sys
from pathlib import Path
from trainer.config import DataConfig
from trainer.data import open_dataset, pack
from trainer.data.packs import pack_files
from trainer.data.cityscapes import Cityscapes

pack_files.SHARD = 2
folder, reads = Path(sys.argv[1]), 0
read = Cityscapes.read

def dying(self, pair):
    global reads
    with open(folder / "reads", "a") as file:
        file.write(pair.stem + "\\n")
    if sys.argv[2] in pair.stem:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, pair)

Cityscapes.read = dying
config = DataConfig(name="cityscapes", size=(32, 64))
pack(open_dataset(config, folder / "city", folder), config, "train", folder)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_what_it_has_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data = _cityscapes(tmp_path, train=41)
    expected = pack(data, config, "train", tmp_path / "undisturbed")
    stems = expected.stems
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), stems[-1]], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = list((tmp_path / "packed").glob("*-samples-*.arrow"))
    assert len(left) >= 2
    assert packed_fingerprint(data, config, "train", tmp_path) is None
    monkeypatch.setattr(pack_files, "SHARD", 2)
    read = type(data).read
    again: list[str] = []

    def counting(self: SegDataset, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        again.append(pair.stem)
        return read(self, pair)

    monkeypatch.setattr(type(data), "read", counting)
    packed = pack(data, config, "train", tmp_path)
    assert sorted(again) == stems[2 * len(left) :]
    assert not list((tmp_path / "packed").glob(".*"))
    assert packed.fingerprint == expected.fingerprint
    for i in range(41):
        np.testing.assert_array_equal(packed.images([i]), expected.images([i]))
        np.testing.assert_array_equal(packed.native_label(i), expected.native_label(i))


def test_a_disk_without_room_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data = _cityscapes(tmp_path)
    need = (5 + 1) * 4 * 32 * 64 + 1 * 64 * 128
    free = [need - 1]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free[0]))
    with monkeypatch.context() as patch:
        patch.setattr(type(data), "read", None)
        with pytest.raises(UserError, match=r"packing cityscapes train and cityscapes val needs 0.00 GB in .*packed"):
            pack_splits(data, config, {"train": False, "val": True}, tmp_path)
    free[0] = need
    pack_splits(data, config, {"train": False, "val": True}, tmp_path)
    free[0] = 0  # what is packed needs none
    pack_splits(data, config, {"train": False, "val": True}, tmp_path)
    with pytest.raises(UserError, match="packing cityscapes train needs"):
        pack(data, config, "train", tmp_path)


def test_progress_rate_and_disk_space_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data = _cityscapes(tmp_path)
    said: list[str] = []
    pack(data, config, "val", tmp_path, say=said.append)
    assert said == [], "a short silence is no news"
    monkeypatch.setattr(packing, "SAID_EVERY_S", 0.0)
    pack(data, config, "train", tmp_path, say=said.append)
    assert len(said) == 5
    assert re.fullmatch(
        r"packing cityscapes train: 2 of 5 images, \d+ a second, \d+ s left; 0.00 GB in .*packed", said[1]
    )


def test_a_process_that_waits_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data = _cityscapes(tmp_path)
    monkeypatch.setattr(packing, "SAID_EVERY_S", 0.0)
    files = PackFiles(config, "train", data.pairs("train"), tmp_path / "packed")
    files.folder.mkdir()
    with (files.folder / f"{files.stem}.lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        said: list[str] = []

        def say(text: str) -> None:
            said.append(text)
            fcntl.flock(holder, fcntl.LOCK_UN)

        assert len(pack(data, config, "train", tmp_path, say=say)) == 5
    assert said[0] == "waiting for another process, which packs cityscapes train"


DAMAGE = {
    "cut off": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "other bytes": lambda data: bytes(len(data)),
    "no Arrow file": lambda data: b"<html>" + data,
    "another stem": lambda data: data.replace(b"_000001_", b"_000009_"),
    "another digest": lambda data: re.sub(rb"(_000019\0{7}).", rb"\1?", data, count=1, flags=re.DOTALL),
}


@pytest.mark.parametrize("damage", [*DAMAGE, "a folder", "a link to nothing"])
def test_a_damaged_pack_is_packed_again(damage: str, tmp_path: Path) -> None:
    config = _config(32, 64)
    data = open_dataset(config, None, tmp_path)
    expected = pack(data, config, "train", tmp_path)
    for file in (tmp_path / "packed").glob("*.arrow"):
        content = file.read_bytes()
        file.unlink()
        if damage == "a folder":
            (file / "inside").mkdir(parents=True)
        elif damage == "a link to nothing":
            file.symlink_to(tmp_path / "gone")
        else:
            file.write_bytes(DAMAGE[damage](content))
    again = pack(data, config, "train", tmp_path)
    assert again.fingerprint == expected.fingerprint
    for i in range(len(expected)):
        np.testing.assert_array_equal(again.images([i]), expected.images([i]))
        np.testing.assert_array_equal(again.native_label(i), expected.native_label(i))
    assert not is_damaged(next((tmp_path / "packed").glob("*-samples-*.arrow")))


def test_a_pixel_that_changed_is_found_by_the_full_check(tmp_path: Path) -> None:
    config = _config(32, 64)
    pack(open_dataset(config, None, tmp_path), config, "train", tmp_path)
    files = sorted((tmp_path / "packed").glob("*.arrow"))
    assert len(files) == 2 and damaged_packs("scenes", tmp_path) == []
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    assert damaged_packs("scenes", tmp_path) == [
        f"packed file {file} is damaged; delete it, and the next run packs it again" for file in files
    ]
