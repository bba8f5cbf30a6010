"""Read image and label files: the one reader of training, checks and predictions.

Every file is turned as its orientation tag (EXIF) says. A file that has no faithful reading is refused.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from trainer.config import UserError, message_of, shown
from trainer.config.input_files import check_regular

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Endings of images in a data set's folder, in any case."""

ARRAY = ".npy"
"""The ending of an array of numpy."""

ENDINGS = (*SUFFIXES, ".tif", ".tiff", ".bmp", ".webp", ARRAY)
"""Of images and masks in a user's own folder, in any case."""

LIMIT = "TRANSKD_MAX_PIXELS"
"""The environment variable with the most pixels that an image may have."""

DEFAULT_LIMIT = 178_956_970
"""Pillow's own limit against decompression bombs: 512 MiB at three bytes a pixel."""

Image.MAX_IMAGE_PIXELS = None  # `_opened` compares with LIMIT instead, which can be raised

_COLOURS = ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "RGBX", "CMYK", "YCbCr")
"""Pillow's modes of 8 bits a channel that convert to RGB. Alpha is dropped: a pixel keeps its stored colour."""

_INDEXED = ("PNG", "TIFF", "BMP", "GIF", "TGA")
"""Formats of labels, by Pillow's names. Others lose or scale values, as AVIF, JPEG and PNM of less than 8 bits do."""

_STEPS = {"1": 1, "P": 1, "P;1": 1, "P;2": 1, "P;4": 1, "L": 1, "L;4": 17, "L;2": 85, "I;16": 1, "I;16B": 1, "I;16N": 1}
"""How labels may be stored (Pillow's raw modes), with the factor by which Pillow spreads grey of 2 and 4 bits to 8."""


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB; of 16 bits a channel, the high 8. Raises UserError for a file that cannot be read so."""
    with _opened(path) as image:
        if image.mode.startswith("I") and _is_16_bit(image):
            grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        if image.mode not in _COLOURS:
            raise UserError(
                f"image {path} has colour mode {image.mode} ({image.format}), which has no faithful reading as 8-bit "
                "RGB; convert it to RGB or grey of 8 or 16 bits"
            )
        image.info.pop("transparency", None)  # of which Pillow would only warn
        return np.asarray(image.convert("RGB"))


def read_indices(path: Path, of_colours: str = "give the index image, not the coloured one") -> np.ndarray:
    """(H, W) uint8 or uint16: the class indices of a label file, which has one channel without loss of compression.

    Raises UserError for a file that cannot be read so; `of_colours` is the remedy where it has several channels.
    """
    with _opened(path) as image:
        step = _STEPS.get(image.info["raw mode"])
        if image.format not in _INDEXED or _is_lossy(image):
            raise UserError(
                f"label {path} is stored as {image.format}{' with loss' * _is_lossy(image)}, which does not keep class "
                "indices; export it again from its source, as PNG (or TIFF without loss, BMP, GIF, TGA)"
            )
        if step is None or _is_inverted(image):
            raise UserError(
                f"label {path} has colour mode {image.mode} ({image.format}) but must be one channel of class indices, "
                f"PNG (or TIFF, BMP, GIF, TGA) of at most 16 bits; {of_colours}"
            )
        values: np.ndarray = np.asarray(image, dtype=np.uint16 if image.mode.startswith("I") else np.uint8)
        return values // step if step > 1 else values


def read_colours(path: Path) -> np.ndarray:
    """(H, W, 3) uint8: the colours of a label file, stored without loss. Raises UserError for others."""
    with _opened(path) as image:
        lossless = image.format in _INDEXED or (image.format == "WEBP" and _is_lossless_webp(path))
        if not lossless or _is_lossy(image) or image.mode not in _COLOURS:
            raise UserError(
                f"label {path} has colour mode {image.mode} ({image.format}) but must hold colours of 8 bits without "
                "loss: PNG (or TIFF, BMP, GIF, TGA, lossless WebP); export it again from its source"
            )
        image.info.pop("transparency", None)
        return np.asarray(image.convert("RGB"))


def read_stored(path: Path) -> np.ndarray:
    """(H, W) or (H, W, C), uint8 or uint16: the channels of an image file as they are stored. Raises UserError."""
    with _opened(path) as image:
        if image.mode.startswith("I") and _is_16_bit(image):
            return np.asarray(image).astype(np.uint16)
        if image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
            raise UserError(
                f"image {path} has colour mode {image.mode} ({image.format}), which has no faithful reading by "
                "channels; convert it to channels of 8 bits, or save it as .npy of (H, W, C)"
            )
        return np.asarray(image)


def orientation(path: Path) -> int:
    """The orientation tag of an image file, 1 to 8 as in EXIF; 1 is upright, as is a file without a valid tag."""
    if path.suffix.lower() == ARRAY:
        return 1
    with Image.open(path) as image:
        found = image.getexif().get(ExifTags.Base.Orientation)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _opened(path: Path) -> Image.Image:
    """The decoded, upright image; `info["raw mode"]` is how its file stores pixels. Raises UserError."""
    check_regular(path)
    limit = _limit()
    try:
        with Image.open(path) as image:
            _check(path, image, limit)
            image.info["raw mode"] = _raw_mode(image)
            ImageOps.exif_transpose(image, in_place=True)
            image.load()
            return image
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise many kinds of errors for damaged files
        reason = message_of(error) or type(error).__name__
        raise UserError(f"cannot read {path} as an image ({reason}); restore the file") from error


def _check(path: Path, image: ImageFile.ImageFile, limit: int) -> None:
    """Raise UserError where the image has too many pixels, or the file holds several images."""
    pixels = image.width * image.height
    if pixels > limit:
        raise UserError(
            f"image {path} has {pixels} pixels ({image.width}x{image.height}) but may have at most {limit}; "
            f"make it smaller, or set {LIMIT}={pixels}"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO adds previews to a photograph
        raise UserError(f"image {path} holds {frames} pictures but must hold one; save it as one")


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Pillow's name for how the file stores its pixels; empty where its decoder has none."""
    arguments = image.tile[0].args if image.tile else None
    found = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return found if isinstance(found, str) else ""


def _is_16_bit(image: Image.Image) -> bool:
    """Whether a grey image of more than 8 bits spans 0 (black) to 65535 (white)."""
    if image.format in ("PNG", "PPM"):
        return True
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample)
    return image.mode.startswith("I;16") and bits == (16,) and not _is_inverted(image)


def _is_lossless_webp(path: Path) -> bool:
    """Whether the pixels of a WebP file are in its lossless format, VP8L, not in VP8."""
    with path.open("rb") as file:
        head = file.read(64)
    return b"VP8L" in head and b"VP8 " not in head


def _is_lossy(image: Image.Image) -> bool:
    """Whether a TIFF is compressed as photographs are."""
    return any(name in str(image.info.get("compression", "")) for name in ("jpeg", "webp", "jp2", "jxl"))


def _is_inverted(image: Image.Image) -> bool:
    """Whether a TIFF counts from white, so that Pillow turns its values around."""
    return getattr(image, "tag_v2", {}).get(ExifTags.Base.PhotometricInterpretation) == 0


def _limit() -> int:
    text = os.environ.get(LIMIT) or str(DEFAULT_LIMIT)
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        raise UserError(
            f"{LIMIT} must be a whole number of pixels, at least 1, but got {shown(text)}; correct or unset it"
        )
    return int(text)
