"""One reader for all verbs: what a file shows is what is read, or the file is refused in one line."""

from __future__ import annotations

import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, features

from trainer.config import IGNORE, DataConfig, UserError
from trainer.data import open_dataset, pack
from trainer.data.camvid import CamVid
from trainer.data.images import read_indices, read_rgb
from trainer.data.pairing import Pair

RGB = np.random.default_rng(0).integers(0, 256, (20, 34, 3), dtype=np.uint8)
GREY = RGB[..., 0]
GREY_16 = np.random.default_rng(1).integers(0, 65536, GREY.shape, dtype=np.uint16)

TURNS = {
    1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2),
    6: RGB.transpose(1, 0, 2)[::-1], 7: RGB.transpose(1, 0, 2)[::-1, ::-1], 8: RGB.transpose(1, 0, 2)[:, ::-1],
}  # fmt: skip
"""RGB as a camera stores it under each orientation tag (EXIF 2.32, 4.6.4.A)."""


def _as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def _tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def _with_alpha(channels: np.ndarray) -> np.ndarray:
    alpha = np.random.default_rng(2).integers(0, 256, GREY.shape, dtype=np.uint8)
    return np.concatenate([channels, alpha[..., None]], axis=2)


def _palette() -> Image.Image:
    picture = Image.fromarray(GREY // 64)
    picture.putpalette(bytes(range(12)))
    picture.info["transparency"] = bytes([0, 128, 255, 255])
    return picture


PICTURES: dict[str, tuple[Image.Image, np.ndarray]] = {
    "colour": (Image.fromarray(RGB), RGB),
    "grey": (Image.fromarray(GREY), _as_rgb(GREY)),
    "grey of 16 bits": (Image.fromarray(GREY_16), _as_rgb((GREY_16 >> 8).astype(np.uint8))),
    "black and white": (Image.fromarray(GREY > 127), _as_rgb(np.where(GREY > 127, 255, 0).astype(np.uint8))),
    "colour with alpha": (Image.fromarray(_with_alpha(RGB)), RGB),
    "grey with alpha": (Image.fromarray(_with_alpha(GREY[..., None])), _as_rgb(GREY)),
    "palette": (_palette(), np.arange(12, dtype=np.uint8).reshape(4, 3)[GREY // 64]),
    "cmyk": (Image.fromarray(RGB).convert("CMYK"), RGB),
}


@pytest.mark.parametrize(
    ("kind", "ending"), [(k, e) for k in PICTURES for e in ("png", "tif") if (k, e) != ("cmyk", "png")]
)
def test_every_kind_of_picture_is_read_as_it_looks(kind: str, ending: str, tmp_path: Path) -> None:
    picture, shown = PICTURES[kind]
    picture.save(tmp_path / f"x.{ending}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_rgb(tmp_path / f"x.{ending}")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, shown)


def _png(path: Path, width: int, height: int, bits: int, colour_type: int, rows: bytes) -> Path:
    """Write a PNG that Pillow reads but cannot write. `rows` begin with their filter, 0."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def test_16_bits_of_colour_keep_their_high_bytes(tmp_path: Path) -> None:
    colours = np.random.default_rng(3).integers(0, 65536, (20, 34, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    np.testing.assert_array_equal(read_rgb(_png(tmp_path / "x.png", 34, 20, 16, 2, rows)), colours >> 8)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_pictures_are_upright(orientation: int, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    Image.fromarray(np.ascontiguousarray(TURNS[orientation])).save(path, exif=_tagged(orientation))
    np.testing.assert_array_equal(read_rgb(path), RGB)


@pytest.fixture
def camvid(tmp_path: Path) -> Callable[..., CamVid]:
    """camvid(picture, label) -> a data set whose splits each hold this pair."""

    def make(picture: Image.Image, label: Image.Image, **saved: Any) -> CamVid:
        for kind, image, options in (("images", picture, saved), ("labels", label, {})):
            for split in ("train", "val"):
                (tmp_path / "camvid" / kind / split).mkdir(parents=True)
                image.save(tmp_path / "camvid" / kind / split / "x.png", **options)
        return CamVid(tmp_path / "camvid", cache=tmp_path / "cache")

    return make


@pytest.mark.parametrize("orientation", TURNS)
def test_a_label_belongs_to_the_upright_picture(
    orientation: int, camvid: Callable[..., CamVid], data_command: Callable[..., Any]
) -> None:
    label = Image.fromarray(GREY % 11)
    dataset = camvid(Image.fromarray(np.ascontiguousarray(TURNS[orientation])), label, exif=_tagged(orientation))
    (pair,) = dataset.pairs("train")
    if orientation in (2, 3, 4):  # as wide as the picture is stored, and as it is shown
        told = (
            f"image {pair.image} has orientation {orientation} (EXIF) but its label {pair.label} has 1, and their sizes"
        )
        with pytest.raises(UserError, match=re.escape(told)):
            dataset.read(pair)
        code, said, _ = data_command("check", "camvid", dataset.root, "--subset")
        assert code == 1
        assert told in said
        return
    image, read = dataset.read(pair)
    np.testing.assert_array_equal(image, RGB)
    np.testing.assert_array_equal(read, GREY % 11)
    if orientation in (6, 8):  # a label as wide as the picture is stored
        label.transpose(Image.Transpose.ROTATE_90).save(pair.label)
        told = f"image {pair.image} has orientation {orientation} (EXIF) but its label {pair.label} has 1"
        with pytest.raises(UserError) as error:
            dataset.read(pair)
        assert told in str(error.value)
        code, said, _ = data_command("check", "camvid", dataset.root, "--subset")
        assert code == 1
        assert told in said


@pytest.mark.parametrize(
    ("shape", "image_turn", "label_turn", "refused"),
    [
        ((20, 34), 1, 2, True),
        ((20, 34), 3, 3, False),
        ((20, 34), 6, 8, True),
        ((20, 34), 1, 99, False),
        ((20, 20), 6, 1, True),
        ((20, 20), 6, 6, False),
    ],
)
def test_a_label_turned_otherwise_than_its_picture_is_refused(
    shape: tuple[int, int], image_turn: int, label_turn: int, refused: bool, tmp_path: Path
) -> None:
    pair = Pair("x", tmp_path / "x.png", tmp_path / "label.png")
    Image.fromarray(RGB[:, : shape[1]].copy()).save(pair.image, exif=_tagged(image_turn))
    Image.fromarray(GREY[:, : shape[1]] % 11).save(pair.label, exif=_tagged(label_turn))
    with pytest.raises(UserError, match="without the tag") if refused else nullcontext():
        CamVid(None, cache=tmp_path).read(pair)


LABEL = (GREY % 11).astype(np.uint8)


@pytest.mark.parametrize(("bits", "values"), [(1, LABEL % 2), (2, LABEL % 4), (4, LABEL), (8, LABEL), (16, LABEL)])
@pytest.mark.parametrize("colours", [False, True])
def test_labels_hold_indices_however_many_bits_they_take(
    bits: int, values: np.ndarray, colours: bool, tmp_path: Path, camvid: Callable[..., CamVid]
) -> None:
    """Pillow spreads grey of 2 and 4 bits to 0..255, so that class 1 would be read as 85 or 17."""
    if bits == 16:
        label = Image.fromarray(values.astype(np.uint16))
    else:
        label = Image.fromarray(values if colours or bits > 1 else values.astype(bool))
        if colours:
            label.putpalette(bytes(range(3 * 16)))
    path = tmp_path / "x.png"
    label.save(path, bits=bits)
    if bits in (2, 4) and not colours:
        _grey_png(path, values, bits)
    np.testing.assert_array_equal(read_indices(path), values)
    np.testing.assert_array_equal(CamVid(None, cache=tmp_path).read_label(path), values)


def _grey_png(path: Path, values: np.ndarray, bits: int) -> None:
    """A grey PNG of 2 or 4 bits a pixel."""
    each = 8 // bits
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % each))).reshape(len(values), -1, each)
    shifts = 8 - bits * np.arange(1, each + 1)
    packed = (padded.astype(int) << shifts).sum(axis=2).astype(np.uint8)
    _png(path, values.shape[1], len(values), bits, 0, b"".join(b"\0" + row.tobytes() for row in packed))


def test_a_16_bit_label_beyond_255_is_named_by_its_value(tmp_path: Path) -> None:
    values = LABEL.astype(np.uint16)
    values[3, 5] = 256 + 7  # whose low byte is a class
    Image.fromarray(values).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"holds 263 at row 3, column 5 \(1 such pixels\)"):
        CamVid(None, cache=tmp_path).read_label(tmp_path / "x.png")
    values[3, 5] = IGNORE
    Image.fromarray(values).save(tmp_path / "x.png")
    assert CamVid(None, cache=tmp_path).read_label(tmp_path / "x.png")[3, 5] == IGNORE


REFUSED: dict[str, tuple[str, Image.Image]] = {
    "floating point": ("tif", Image.fromarray(GREY.astype(np.float32))),
    "32-bit": ("tif", Image.fromarray(GREY.astype(np.int32))),
    "lab": ("tif", Image.new("LAB", (34, 20))),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_faithful_reading_is_refused(kind: str, tmp_path: Path) -> None:
    ending, picture = REFUSED[kind]
    picture.save(tmp_path / f"x.{ending}")
    with pytest.raises(UserError, match=r"x\.tif has colour mode (F|I|LAB) \(TIFF\), which has no faithful reading"):
        read_rgb(tmp_path / f"x.{ending}")


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000", "PPM", "AVIF", "TIFF from white", "TIFF of JPEG"])
def test_a_label_whose_format_may_change_values_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    if kind == "PPM":  # of 4 bits, which Pillow spreads to 8
        path.write_bytes(b"P5 34 20 15\n" + LABEL.tobytes())
    elif kind == "TIFF from white":
        Image.fromarray(LABEL).save(path, "TIFF", tiffinfo={ExifTags.Base.PhotometricInterpretation: 0})
    elif kind == "TIFF of JPEG":
        Image.fromarray(LABEL).save(path, "TIFF", compression="jpeg")
    elif kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    else:
        Image.fromarray(LABEL).save(path, kind, quality=100)
    told = rf"is stored as {kind.split()[0]}( with loss)?, which does not keep class indices; export it again"
    if kind == "TIFF from white":
        told = r"\(TIFF\) but must be one channel of class indices"
    with pytest.raises(UserError, match=told):
        read_indices(path)


def test_a_file_of_several_pictures_is_refused(tmp_path: Path) -> None:
    pictures = [Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())]
    for ending in ("png", "tif", "webp"):
        pictures[0].save(tmp_path / f"x.{ending}", save_all=True, append_images=pictures[1:])
        with pytest.raises(UserError, match="holds 2 pictures but must hold one"):
            read_rgb(tmp_path / f"x.{ending}")


def test_the_limit_is_named_and_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = _png(tmp_path / "large.png", 20_000, 10_000, 8, 0, b"")
    for read in (read_rgb, read_indices):
        with pytest.raises(UserError) as error:
            read(large)
        assert "200000000 pixels (20000x10000) but may have at most 178956970" in str(error.value)
        assert str(error.value).endswith("or set TRANSKD_MAX_PIXELS=200000000")
    small = tmp_path / "small.png"
    Image.fromarray(RGB).save(small)
    for limit, refused in (("680", False), ("679", True)):
        monkeypatch.setenv("TRANSKD_MAX_PIXELS", limit)
        with pytest.raises(UserError, match="at most 679") if refused else nullcontext():
            read_rgb(small)
    for wrong in ("many", "-1", "0", "1e9", "\u0663"):
        monkeypatch.setenv("TRANSKD_MAX_PIXELS", wrong)
        with pytest.raises(UserError, match=f"TRANSKD_MAX_PIXELS must be a whole number .* got '{wrong}'"):
            read_rgb(small)
    monkeypatch.setenv("TRANSKD_MAX_PIXELS", "1" * 5000)
    with pytest.raises(UserError, match="TRANSKD_MAX_PIXELS must be a whole number"):
        read_rgb(small)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_is_one_clear_error(seed: int, tmp_path: Path) -> None:
    """Whatever Pillow raises: bytes are changed, cut or blanked in files of each format."""
    rng = np.random.default_rng(seed)
    for ending in ("png", "jpg", "tif", "webp", "bmp", "ppm"):
        path = tmp_path / f"x.{ending}"
        Image.fromarray(RGB).save(path)
        data = bytearray(path.read_bytes())
        for place in rng.integers(0, min(len(data), 200), 3):
            data[place] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, len(data))])
        for read in (read_rgb, read_indices):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                told = _refusal(read, path)
            assert told is None or (str(path) in told and "\n" not in told)


def _refusal(read: Callable[[Path], np.ndarray], path: Path) -> str | None:
    try:
        read(path)
    except UserError as error:
        return str(error)
    return None


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(UserError, match="is a pipe, and only files can be read"):
        read_rgb(tmp_path / "x.png")


def test_training_reads_what_predictions_read(camvid: Callable[..., CamVid]) -> None:
    dataset = camvid(Image.fromarray(GREY_16), Image.fromarray(LABEL), exif=_tagged(1))
    config = DataConfig(name="camvid", size=(40, 68))
    assert dataset.root is not None
    packed = pack(open_dataset(config, dataset.root, dataset.root.parent), config, "train", dataset.root.parent)
    (pair,) = dataset.pairs("train")
    shown = Image.fromarray(read_rgb(pair.image)).resize((68, 40), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(packed.images([0])[0], np.asarray(shown))
