"""Every way of getting a folder wrong is one clear error before training: one fixture a mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.config import IGNORE, DataConfig, UserError
from trainer.data import open_dataset, pack
from trainer.data.camvid import CamVid
from trainer.data.cityscapes import LABEL_IDS, Cityscapes
from trainer.data.pairing import Pair

SIZE = (32, 32)


def _image(path: Path, size: tuple[int, int] = (48, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 20, 30)).save(path)
    return path


def _label(path: Path, value: int = 0, size: tuple[int, int] = (48, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Three training pairs and a validation pair."""
    root = tmp_path / "camvid"
    for split, stem in (("train", "a"), ("train", "b"), ("train", "c"), ("val", "d")):
        _image(root / "images" / split / f"{stem}.jpg")
        _label(root / "labels" / split / f"{stem}.png", 3)
    return root


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """One training pair in each of two cities, the stems' numbers equal, as labelIds of `car`."""
    root = tmp_path / "cityscapes"
    for city in ("bonn", "aachen"):
        _image(root / "leftImg8bit" / "train" / city / f"{city}_000001_000019_leftImg8bit.png")
        _label(root / "gtFine" / "train" / city / f"{city}_000001_000019_gtFine_labelIds.png", LABEL_IDS["car"])
    return root


@pytest.fixture
def refuse(tmp_path: Path) -> Callable[..., str]:
    """refuse(name, root) -> the message with which packing `train` is refused."""

    def message(name: str, root: Path) -> str:
        config = DataConfig(name=name, size=SIZE)
        with pytest.raises(UserError) as error:
            pack(open_dataset(config, root, tmp_path / "cache"), config, "train", tmp_path / "cache")
        text = str(error.value)
        assert "\n" not in text
        assert not list((tmp_path / "cache").rglob("*.arrow")), "a refused split leaves no pack behind"
        assert not list((tmp_path / "cache").rglob("*.tmp"))
        return text

    return message


def test_pairs_are_by_stem_and_sorted(camvid: Path, cityscapes: Path, tmp_path: Path) -> None:
    data = open_dataset(DataConfig(name="camvid"), camvid, tmp_path)
    assert [(p.stem, p.image.stem, p.label.stem) for p in data.pairs("train")] == [(s, s, s) for s in "abc"]
    assert [pair.stem for pair in data.pairs("val")] == ["d"]
    stems = [pair.stem for pair in open_dataset(DataConfig(name="cityscapes"), cityscapes, tmp_path).pairs("train")]
    assert stems == ["aachen/aachen_000001_000019", "bonn/bonn_000001_000019"]


def test_missing_halves_are_named(camvid: Path, refuse: Callable[..., str]) -> None:
    label = camvid / "labels" / "train" / "b.png"
    label.unlink()
    assert f"image without its label: {camvid / 'images' / 'train' / 'b.jpg'}" in refuse("camvid", camvid)
    _label(label)
    (camvid / "images" / "train" / "c.jpg").unlink()
    assert f"label without its image: {camvid / 'labels' / 'train' / 'c.png'}" in refuse("camvid", camvid)


def test_many_missing_halves_make_one_short_line(camvid: Path, refuse: Callable[..., str]) -> None:
    for stem in "efghi":
        _image(camvid / "images" / "train" / f"{stem}.jpg")
    assert "and 2 more" in refuse("camvid", camvid)


def test_two_files_of_one_stem_are_refused(camvid: Path, refuse: Callable[..., str]) -> None:
    twin = _image(camvid / "images" / "train" / "b.png")
    assert f"{twin.with_suffix('.jpg')} and {twin} have the same stem; keep one of them" in refuse("camvid", camvid)


def test_equal_counts_of_other_stems_are_not_paired(cityscapes: Path, refuse: Callable[..., str]) -> None:
    label = cityscapes / "gtFine" / "train" / "bonn" / "bonn_000001_000019_gtFine_labelIds.png"
    label.rename(label.with_name("bonn_000002_000019_gtFine_labelIds.png"))
    assert "bonn_000001_000019_leftImg8bit.png" in refuse("cityscapes", cityscapes)


def test_missing_and_empty_folders(camvid: Path, tmp_path: Path, refuse: Callable[..., str]) -> None:
    assert "no folder" in refuse("camvid", tmp_path / "nowhere")
    (camvid / "labels").rename(camvid / "annotations")
    assert "labels/{train,val}/STEM.png" in refuse("camvid", camvid)
    empty = tmp_path / "empty"
    for kind in ("images", "labels"):
        (empty / kind / "train").mkdir(parents=True)
    assert "no images below" in refuse("camvid", empty)


@pytest.mark.parametrize("value", [12, 200, 254])
def test_a_value_outside_the_classes_is_named_with_file_and_place(
    camvid: Path, refuse: Callable[..., str], value: int
) -> None:
    path = camvid / "labels" / "train" / "b.png"
    values = np.full((40, 48), 2, np.uint8)
    values[7, 5] = values[30, 1] = value
    Image.fromarray(values).save(path)
    message = refuse("camvid", camvid)
    assert f"{path} holds {value} at row 7, column 5 (2 such pixels) but may hold 0..10" in message


def test_train_ids_under_the_name_of_label_ids_stay_what_the_name_says(cityscapes: Path, tmp_path: Path) -> None:
    data = open_dataset(DataConfig(name="cityscapes"), cityscapes, tmp_path)
    assert set(np.unique(data.read_label(data.pairs("train")[0].label))) == {Cityscapes.classes.index("car")}


def test_label_ids_under_the_name_of_train_ids_are_refused(cityscapes: Path, refuse: Callable[..., str]) -> None:
    _label(cityscapes / "gtFine" / "train" / "bonn" / "bonn_000001_000019_gtFine_labelTrainIds.png", LABEL_IDS["car"])
    message = refuse("cityscapes", cityscapes)
    assert "bonn_000001_000019_gtFine_labelTrainIds.png holds 26" in message
    assert "0..18, or 255 (ignored)" in message


def test_train_ids_are_preferred_and_255_is_ignored_not_a_class(cityscapes: Path, tmp_path: Path) -> None:
    path = cityscapes / "gtFine" / "train" / "bonn" / "bonn_000001_000019_gtFine_labelTrainIds.png"
    values = np.full((40, 48), 18, np.uint8)
    values[:5] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    data = open_dataset(DataConfig(name="cityscapes"), cityscapes, tmp_path)
    pair = data.pairs("train")[1]
    assert pair.label == path
    np.testing.assert_array_equal(data.read_label(pair.label), np.where(values == 255, IGNORE, 18))


def test_every_cityscapes_id_is_its_train_id_or_ignored(tmp_path: Path) -> None:
    path = tmp_path / "x_gtFine_labelIds.png"
    Image.fromarray(np.arange(34, dtype=np.uint8)[None]).save(path)
    # labels.py of cityscapesScripts, the column trainId, for ids 0..33.
    published = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    published += [255, 255, 16, 17, 18]
    assert Cityscapes(None, cache=tmp_path).read_label(path)[0].tolist() == published


def test_void_as_255_is_ignored_in_camvid_like_its_own_11(camvid: Path, tmp_path: Path) -> None:
    path = camvid / "labels" / "train" / "a.png"
    Image.fromarray(np.array([[0, 10, 11, 255]], np.uint8)).save(path)
    data = open_dataset(DataConfig(name="camvid"), camvid, tmp_path)
    assert data.read_label(path)[0].tolist() == [0, 10, IGNORE, IGNORE]


def test_palette_images_are_read_by_index_and_coloured_ones_refused(camvid: Path, refuse: Callable[..., str]) -> None:
    path = camvid / "labels" / "train" / "a.png"
    indexed = Image.new("P", (48, 40), 4)
    indexed.putpalette([0, 0, 0] * 4 + [60, 40, 222])
    indexed.save(path)
    data = open_dataset(DataConfig(name="camvid"), camvid, camvid)
    assert np.unique(data.read_label(path)).tolist() == [4]
    _image(path)
    assert f"label {path} has colour mode RGB" in refuse("camvid", camvid)


def test_sizes_that_differ_name_both_files(camvid: Path, refuse: Callable[..., str]) -> None:
    path = _label(camvid / "labels" / "train" / "b.png", 3, size=(24, 20))
    message = refuse("camvid", camvid)
    assert f"{camvid / 'images' / 'train' / 'b.jpg'} is 48x40 but its label {path} is 24x20" in message


def test_a_broken_file_is_named(camvid: Path, refuse: Callable[..., str]) -> None:
    path = camvid / "images" / "train" / "b.jpg"
    path.write_bytes(path.read_bytes()[:200])
    assert f"cannot read {path} as an image" in refuse("camvid", camvid)


def test_names_and_options_are_checked_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown data set 'camvit'; did you mean 'camvid'"):
        open_dataset(DataConfig(name="camvit"), None, tmp_path)
    with pytest.raises(UserError, match=r"data\.options: unknown option 'sed'; did you mean 'seed'"):
        open_dataset(DataConfig(name="scenes", options={"sed": 1}), None, tmp_path)
    with pytest.raises(UserError, match="unknown option 'cache'"):
        open_dataset(DataConfig(name="scenes", options={"cache": "x"}), None, tmp_path)
    with pytest.raises(UserError, match="data set 'camvid' needs a folder; give --data-root"):
        open_dataset(DataConfig(name="camvid"), None, tmp_path)


def test_read_gives_bytes_of_one_size(camvid: Path, tmp_path: Path) -> None:
    data = open_dataset(DataConfig(name="camvid"), camvid, tmp_path)
    image, label = data.read(Pair("a", camvid / "images" / "train" / "a.jpg", camvid / "labels" / "train" / "a.png"))
    assert (image.shape, image.dtype, label.shape, label.dtype) == ((40, 48, 3), np.uint8, (40, 48), np.uint8)


@pytest.mark.slow
def test_any_damage_to_a_file_is_a_users_error_with_its_name(camvid: Path) -> None:
    """Pillow raises several things, and not all of them are OSErrors."""
    data = CamVid(camvid, cache=camvid)
    path = camvid / "labels" / "train" / "a.png"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    messages = []
    for _ in range(200):
        damaged = bytearray(whole)
        for at in rng.integers(len(whole), size=3):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            data.read_label(path)
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 150
    assert all(str(path) in message for message in messages)
