"""docs/names.md has every name that a YAML file may say, and every option of a knowledge path or step."""

import inspect
import re
from pathlib import Path

import pytest

from trainer.data import DATASETS
from trainer.data.augmentations import AUGMENTATIONS
from trainer.distill import DISTILLERS
from trainer.losses import LOSSES
from trainer.models import MODELS

PAGE = (Path(__file__).parents[1] / "docs" / "names.md").read_text()


def expanded(page):
    """`x0` .. `x5` as six names."""
    names = set(re.findall(r"`(\w+)`", page))
    for stem, first, last in re.findall(r"`(\w+?)(\d)` \.\. `\w+?(\d)`", page):
        names |= {f"{stem}{i}" for i in range(int(first), int(last) + 1)}
    return names


@pytest.mark.parametrize("name", [*MODELS, *DISTILLERS, *LOSSES, *DATASETS, *AUGMENTATIONS])
def test_a_name_is_on_the_page(name):
    assert name in expanded(PAGE)


@pytest.mark.parametrize("name", LOSSES)
def test_an_option_of_a_loss_is_in_its_row(name):
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    assert set(inspect.signature(LOSSES[name]).parameters) == set(re.findall(r"`([a-z]+)`", row.split("|")[3]))


@pytest.mark.parametrize("name", DISTILLERS)
def test_an_option_is_in_its_paths_row(name):
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    row += "".join(line for line in PAGE.splitlines() if "as `pea`" in row and line.startswith("| `pea` |"))
    options = set(inspect.signature(DISTILLERS[name]).parameters) - {"student", "teacher"}
    assert options <= set(re.findall(r"`(\w+)`", row))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_option_is_in_its_steps_row(name):
    steps = PAGE.partition("## Augmentation")[2].partition("## Predictions")[0]
    (row,) = [line for line in steps.splitlines() if line.startswith(f"| `{name}` |")]
    assert set(inspect.signature(AUGMENTATIONS[name]).parameters) <= set(re.findall(r"`(\w+)`", row))


@pytest.mark.parametrize("name", DATASETS)
def test_the_official_counts_are_in_its_row(name, tmp_path):
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    official = getattr(DATASETS[name], "official", None)
    if official is not None and official.train and name != "scenes":
        assert f"| {official.train} / {official.val} |" in row
    assert f"| {len(DATASETS[name].classes) or 'yours'} |" in row
