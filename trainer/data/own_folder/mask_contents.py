"""What a file holds as a mask: its values or colours, whether it looks like a mask, and why it can be none."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.config import UserError
from trainer.data import arrays, images

MOST_VALUES = 256
"""Different values or colours that masks may hold: photographs and masks saved with loss hold more."""
_FEW_VALUES = 8
"""Different values or colours up to which a picture without loss is taken for a mask, however they are strewn."""
_FLAT = 0.75
"""The share of neighbours with equal values from which a picture of more values is taken for a mask. A grey photograph
has at most 256 values too, but of its neighbours few are equal."""


def looks_like_mask(path: Path) -> bool:
    """Whether a file is stored without loss, and holds few values or colours, or some in flat areas."""
    try:
        mask = mask_array(path)
    except UserError:
        return False
    values = len(_counted(mask)[0])
    return values <= _FEW_VALUES or (values <= MOST_VALUES and _flatness(mask) >= _FLAT)


def why_no_mask(path: Path) -> str | None:
    """The reason why a file that is called a mask cannot be read as one; None where it can."""
    try:
        values = len(mask_values(path)[0])
    except UserError as error:
        return str(error)
    return f"{path} holds {values} different values, as photographs do" if values > MOST_VALUES else None


def mask_values(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The different values of a mask, (n,) integers or (n, 3) colours, and the pixels of each, (n,).

    Raises UserError for a file that can hold neither.
    """
    return _counted(mask_array(path))


def mask_array(path: Path) -> np.ndarray:
    """(H, W) values, or (H, W, 3) colours. Raises UserError for a file that can hold neither."""
    try:
        return arrays.read_values(path)
    except UserError:
        if path.suffix.lower() == images.ARRAY:
            raise
    return images.read_colours(path)


def _counted(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if mask.ndim == 2:
        return np.unique(mask, return_counts=True)
    codes = (mask.reshape(-1, 3).astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(1, dtype=np.uint32)
    found, counts = np.unique(codes, return_counts=True)
    return np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1), counts


def _flatness(mask: np.ndarray) -> float:
    """The share of pixels that equal the one to their left."""
    same = mask[:, 1:] == mask[:, :-1]
    return float((same if mask.ndim == 2 else same.all(axis=2)).mean()) if same.size else 1.0
