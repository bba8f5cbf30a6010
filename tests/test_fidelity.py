"""docs/fidelity.md names real files and real tests, and every golden file has a test that reads it."""

import re
from pathlib import Path

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


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "tests" / "golden").glob("*.npz")))
def test_a_golden_file_is_read(name):
    assert f'"{name}"' in TESTS
