"""Plugins that are wrong at run time: one line with the file and what is wrong, before a run has written anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from trainer.config import DataConfig, UserError, override, parse, with_plugins
from trainer.config.plugin import read_plugin
from trainer.data.augmentations.base import Sample
from trainer.data.augmenter import Augmenter
from trainer.data.make import make_tree
from trainer.plugins.load import activate, entries_of
from trainer.training.build import check

Make = Callable[..., Any]

RUN = {
    "plugins": ["my_kd.py", "my_net.py", "my_data.py", "my_steps.py"],
    "data": {"name": "scenes", "size": [32, 64]},
    "student": {"name": "segformer_tiny"},
    "optim": {"epochs": 1, "global_batch": 4},
}
STEP = {"data.augment": ["upside_down"]}
NET = {"student.name": "small_net"}
BLOBS = {"data.name": "blobs"}
GAP = {"teacher": {"name": "segformer_tiny", "train": {"epochs": 1}}, "distill": {"mean_gap": {}}}
INIT = "        self.probability = probability"
RETURN = "        return sample._replace(image=sample.image[::-1], label=sample.label[::-1])"
SPARED = "        if draw.random() >= self.probability:\n            return sample\n"
LOSS = "        return self.scale * (self.project(ours) - theirs).square().mean()"


def edited(folder: Path, name: str, *edits: tuple[str, str]) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    (folder / name).write_text(text, encoding="utf-8")


def fitted(folder: Path, command: Make, changes: dict[str, Any], *arguments: str | Path) -> str:
    """What `fit` says of a run that it refuses: one line; it has written nothing."""
    (folder / "run.yaml").write_text(yaml.safe_dump(override(RUN, changes)))
    code, _, err = command("fit", folder / "run.yaml", "--out", folder / "out", *arguments)
    assert code == 2, err
    assert err.count("\n") == 1 and err.startswith("error: "), err
    assert not (folder / "out").exists() or not list((folder / "out").iterdir())
    return err.removeprefix("error: ")


@pytest.mark.parametrize(
    ("name", "old", "new", "changes", "told"),
    [
        (
            "my_steps.py",
            INIT,
            "        1 / 0",
            STEP,
            "data.augment.upside_down: plugin my_steps.py, line 11: ZeroDivision",
        ),
        ("my_steps.py", RETURN, "        {}['a']", STEP, "plugin my_steps.py, line 14: KeyError: 'a'; `transkd plugin"),
        (
            "my_steps.py",
            RETURN,
            "        pass",
            STEP,
            "plugin my_steps.py: data.augment.upside_down: it must return a Sample, but returned NoneType; end with",
        ),
        (
            "my_steps.py",
            RETURN,
            "        return sample._replace(image=sample.image / 2)",
            STEP,
            "plugin my_steps.py: data.augment.upside_down: image and label must stay uint8, but one is float64; round",
        ),
        (
            "my_steps.py",
            RETURN,
            "        return sample._replace(image=sample.image[2:])",
            STEP,
            "plugin my_steps.py: data.augment.upside_down: the image has shape (30, 64, 3), but its label (32, 64); ",
        ),
        (
            "my_steps.py",
            RETURN,
            "        return sample._replace(image=sample.image.swapaxes(0, 1), label=sample.label.T)",
            STEP,
            "plugin my_steps.py: data.augment.upside_down: an image became 64x32, which sizes() does not allow; let it",
        ),
        (
            "my_steps.py",
            RETURN,
            "        return sample._replace(label=sample.label + 7)",
            STEP,
            "data.augment: after upside_down a label holds",
        ),
        (
            "my_steps.py",
            RETURN,
            f"{RETURN}\n\n    def sizes(self, given):\n        return given[0]",
            STEP,
            "data.augment.upside_down: plugin my_steps.py: sizes() must give Sizes but gave (32, 64); return `given`",
        ),
        (
            "my_kd.py",
            LOSS,
            f"{LOSS}.expand(4)",
            GAP,
            "plugin my_kd.py: distill.mean_gap: the loss must be a float scalar,",
        ),
        (
            "my_kd.py",
            LOSS,
            "        pass",
            GAP,
            "plugin my_kd.py: distill.mean_gap: the loss must be a float scalar, but",
        ),
        (
            "my_kd.py",
            LOSS,
            "        return [][0]",
            GAP,
            "plugin my_kd.py, line 27: IndexError: list index out of range",
        ),
        (
            "my_net.py",
            "self.channels = Channels(WIDTHS, (), (4, 8, 16, 32), num_classes)",
            "pass",
            NET,
            "plugin my_net.py: the model 'small_net' must have its geometry in `channels`, a Channels",
        ),
        (
            "my_net.py",
            "return SegOutput(logits, features, ())",
            "return logits",
            NET,
            "plugin my_net.py: student: forward must return a SegOutput (trainer.models.base), but returned Tensor",
        ),
        (
            "my_net.py",
            "nn.Conv2d(sum(WIDTHS), num_classes, 1)",
            "nn.Conv2d(sum(WIDTHS), 3, 1)",
            NET,
            "plugin my_net.py: student: of an image of 32x64 the logits must have shape (4, 19, 8, 16), but have (4,",
        ),
        (
            "my_net.py",
            "(4, 2, 2, 2)",
            "(2, 2, 2, 2)",
            NET,
            "plugin my_net.py: student: of an image of 32x64 the logits must have shape (4, 19, 8, 16), but have (4,",
        ),
        (
            "my_net.py",
            "GroupedBatchNorm2d(width)",
            "nn.BatchNorm2d(width)",
            NET,
            "plugin my_net.py: student.stages.0.1 is BatchNorm2d, whose statistics depend on micro-batches and worker",
        ),
        (
            "my_net.py",
            "    def forward",
            "    def ahead",
            NET,
            "plugin my_net.py: the model 'small_net' must implement forward(",
        ),
        ("my_net.py", "(SegModel)", "(nn.Module)", NET, "plugin my_net.py: the model 'small_net' must be a SegModel"),
    ],
)
def test_what_a_forward_pass_or_a_made_up_image_shows(
    name: str, old: str, new: str, changes: dict[str, Any], told: str, own: Path, command: Make
) -> None:
    edited(own, name, (SPARED, ""), (old, new)) if name == "my_steps.py" else edited(own, name, (old, new))
    found = fitted(own, command, changes)
    assert found.startswith(told), found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "        images = folder",
            "        1 / 0\n        images = folder",
            "plugin my_data.py, line 19: ZeroDivisionError",
        ),
        (
            "return Found(",
            "return (",
            "plugin my_data.py: find() of Blobs must give a Found (trainer.data.pairing) of dict",
        ),
        (
            "label_table({0: 0, 1: 1}, ignored=())",
            "{0: 0, 1: 1}",
            "plugin my_data.py: table() of Blobs must give an array (256,) uint8 of classes below 2, 254 and 255, as",
        ),
        (
            "{0: 0, 1: 1}",
            "{0: 0, 1: 2}",
            "plugin my_data.py: table() of Blobs must give an array (256,) uint8 of classes be",
        ),
        (
            "    def table",
            "    def read_image(self, path):\n        return super().read_image(path) / 2\n\n    def table",
            "plugin my_data.py: read_image() of Blobs must give an array (H, W, 3) uint8, but gave float64 of shape",
        ),
        (
            "    def table",
            "    def read_label(self, path):\n        return super().read_label(path) + 3\n\n    def table",
            "plugin my_data.py: read_label() gave class 4 of",
        ),
        (
            "(220, 40, 40))",
            ")",
            "plugin my_data.py: the data set 'blobs' must have classes, and a colour of each in palette",
        ),
    ],
)
def test_what_the_first_files_show(old: str, new: str, told: str, own: Path, command: Make) -> None:
    dataset = entries_of(read_plugin("my_data.py", own))["DATASETS"]["blobs"]
    make_tree(dataset(own / "tree", cache=own), train=4, val=4, seed=0, size=(64, 128))
    edited(own, "my_data.py", (old, new))
    assert fitted(own, command, BLOBS, "--data-root", own / "tree").startswith(told)


def test_a_step_that_goes_wrong_at_a_rare_draw_is_told_in_the_run(own: Path) -> None:
    edited(own, "my_steps.py", ("if draw.random() >= self.probability", "if sample.image.max() < 255"), (RETURN, ""))
    activate([read_plugin("my_steps.py", own)])
    augmenter = Augmenter(DataConfig(size=(32, 64), augment=["upside_down"]), 0, np.zeros(3, np.uint8))  # type: ignore[arg-type]
    label = np.zeros((32, 64), np.uint8)
    dark = Sample(np.zeros((32, 64, 3), np.uint8), label, augmenter.fill)
    assert augmenter.apply(dark, 0, 0) is dark
    with pytest.raises(UserError, match=r"plugin my_steps.py: data.augment.upside_down: it must return a Sample"):
        augmenter.apply(dark._replace(image=dark.image + np.uint8(255)), 0, 0)


def test_a_multiplier_of_a_head_that_is_not_there_is_refused_first(own: Path, command: Make, tmp_path: Path) -> None:
    """Also where the structure has been checked before, without the multiplier."""
    config = parse(with_plugins(override(RUN, NET), own))
    activate(config.used_plugins)
    check(config, tmp_path / "cache")
    factor = {"optim.lr_multipliers": {"head": 10.0}}
    with pytest.raises(
        UserError, match=r"optim.lr_multipliers.head is 10, but the student has no parameters of a head"
    ):
        check(parse(with_plugins(override(RUN, {**NET, **factor}), own)), tmp_path / "cache")
    assert "name its head in `head_names` of its class" in fitted(own, command, {**NET, **factor})
    edited(own, "my_net.py", ("    def __init__", '    head_names = ("classify.",)\n\n    def __init__'))
    config = parse(with_plugins(override(RUN, {**NET, **factor}), own))
    activate(config.used_plugins)
    check(config, tmp_path / "cache")
