"""Read images and labels of any number of channels: .npy arrays, and image files by their channels."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from trainer.config import UserError, message_of
from trainer.config.input_files import check_regular
from trainer.data import images

Span = tuple[float, float]
"""The values of an image's file that become 0 and 255."""


_READING = threading.Lock()
"""NumPy reads the header of an array with `ast`. In Python 3.11 that fails where garbage is collected while two threads
are in it (python/cpython#106905)."""


def read_array(path: Path) -> np.ndarray:
    """The array of a .npy file. Raises UserError for a file that is none, or holds Python objects."""
    check_regular(path)
    try:
        with _READING:
            return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        reason = message_of(error) or type(error).__name__
        raise UserError(f"cannot read {path} as an array ({reason}); save it again with numpy.save") from None


def read_values(path: Path) -> np.ndarray:
    """(H, W) uint8 or uint16: the values of a label file. Raises UserError for one that cannot be read so."""
    if path.suffix.lower() != images.ARRAY:
        return images.read_indices(
            path, "give the index image, or name the colours, data.options.classes: {NAME: [R, G, B]}"
        )
    values = read_array(path)
    whole = values.dtype == np.bool_ or np.issubdtype(values.dtype, np.integer)
    if values.ndim != 2 or not whole or not values.size:
        raise UserError(
            f"label {path} holds {values.dtype} of shape {values.shape} but must hold whole numbers of shape (H, W); "
            "save class indices"
        )
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UserError(
            f"label {path} holds values from {low} to {high} but may hold 0 to 65535; save what is ignored as 255"
        )
    return values.astype(np.uint8 if high < 256 else np.uint16)


def read_image(path: Path, channels: int = 3, span: Span | None = None) -> np.ndarray:
    """(H, W, C) uint8 of a file with C `channels`; grey counts as RGB where C is 3.

    `span` are the values that become 0 and 255; by default those of the file's type, of 16 bits the high 8. Raises
    UserError for another number of channels, and for numbers of a type without bounds where there is no `span`.
    """
    if channels == 3 and span is None and path.suffix.lower() != images.ARRAY:
        return images.read_rgb(path)
    stored = read_array(path) if path.suffix.lower() == images.ARRAY else images.read_stored(path)
    image = stored[..., None] if stored.ndim == 2 else stored
    if channels == 3 and image.ndim == 3 and image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    if image.ndim != 3 or image.shape[2] != channels or not image.size:
        raise UserError(
            f"image {path} holds an array of shape {stored.shape} but must hold (H, W) of {channels} channels; correct "
            "the file or data.options.channels"
        )
    return _in_bytes(path, image, span)


def _in_bytes(path: Path, image: np.ndarray, span: Span | None) -> np.ndarray:
    if span is None and image.dtype == np.uint8:
        return image
    if span is None and image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    if span is None or not (np.issubdtype(image.dtype, np.integer) or np.issubdtype(image.dtype, np.floating)):
        raise UserError(
            f"image {path} holds {image.dtype}, whose darkest and brightest value are not known; set "
            "data.options.range: [LOW, HIGH], or save uint8 or uint16"
        )
    if not np.isfinite(image).all():
        raise UserError(f"image {path} holds numbers that are not finite; replace them before it is saved")
    low, high = span
    return np.rint((image.astype(np.float64) - low).clip(0, high - low) * (255 / (high - low))).astype(np.uint8)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W, C) -> (H, W, 3) to look at: the first three channels, or the first as grey."""
    return image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
