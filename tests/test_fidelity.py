"""docs/fidelity.md names real files and real tests, and every golden file has a test that reads it."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "fidelity.md").read_text()
TESTS = "\n".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:trainer|tests|ablations)/[\w/.]+)`", PAGE))))
def test_a_file_the_page_names_is_there(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", PAGE))))
def test_a_test_the_page_names_is_there(name):
    assert f"def {name}(" in TESTS


GOLDEN = sorted((ROOT / "tests" / "golden").glob("*.npz"))


@pytest.mark.parametrize("name", [path.stem for path in GOLDEN])
def test_a_golden_file_is_read(name):
    assert f'"{name}"' in TESTS


WEAK = {
    "transform": {"label_u8"},  # blocks; `transform_noise` has labels of independent pixels
    "ln_eps": {"bias"},  # zero, so that the inputs of its norms keep a low variance; `mit_block` has biases
}
"""Arrays of golden files that may be constant or blocky, by the last part of their name, and why."""


def weaknesses(array):
    """Why an array could hide a wrong resize, order or axis: constant, blocky or symmetric along an axis."""
    if np.all(array == array.flat[0]):
        return ["zero" if not array.flat[0] else "constant"]
    found = []
    for axis in range(array.ndim):
        if array.shape[axis] > 1:
            ahead, behind = np.split(array, [-1], axis)[0], np.split(array, [1], axis)[1]
            found += [f"blocky along axis {axis}"] if np.mean(ahead == behind) > 0.5 else []
            found += [f"symmetric along axis {axis}"] if np.array_equal(array, np.flip(array, axis)) else []
    square = array.ndim > 1 and array.shape[-1] == array.shape[-2] > 1
    return found + (["symmetric"] if square and np.array_equal(array, array.swapaxes(-1, -2)) else [])


@pytest.mark.parametrize(
    "array", [np.zeros((3, 4)), np.repeat(np.arange(8.0), 4), np.abs(np.arange(-4.0, 5)), np.eye(4)]
)
def test_weaknesses_are_seen(array):
    assert weaknesses(array)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_arrays_hide_no_wrong_resize_order_or_axis(path):
    with np.load(path) as arrays:
        names = [name for name in arrays if name.replace(".", "/").split("/")[-1] not in WEAK.get(path.stem, ())]
        numbers = {name: array for name in names if (array := arrays[name]).dtype.kind in "iuf" and array.size >= 8}
    assert {name: why for name, array in numbers.items() if (why := weaknesses(array))} == {}
