"""Validation: one matrix over the split, whatever the batch and however many workers; and the two protocols."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.config import IGNORE, DataConfig
from trainer.data import PackedSplit, open_dataset, pack
from trainer.data.transforms import quarter_label
from trainer.models.base import Channels, SegModel, SegOutput
from trainer.training.evaluation import metrics
from trainer.training.evaluation.evaluate import evaluate
from trainer.training.evaluation.metrics import confusion

CLASSES = 19
NAMES = tuple(f"class{i}" for i in range(CLASSES))
CONFIG = DataConfig(size=(64, 128), options={"train": 1, "val": 5, "size": [128, 256]}, normalize="unit")

COLOURS = """
import torch
from torch import nn
from trainer.models.base import Channels, SegModel, SegOutput

class Colours(SegModel):
    '''Guesses a class from the colour alone, in whole numbers: exact for every batch.'''

    def __init__(self):
        super().__init__()
        self.channels = Channels((), (), (), 19)
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, image, keys=None, needs=frozenset()):
        level = (image * 255).round().sum(1)[:, ::4, ::4] // 41
        return SegOutput(nn.functional.one_hot(level.long().clamp(0, 18), 19).permute(0, 3, 1, 2).float(), (), ())
"""


def colours() -> SegModel:
    """The network of COLOURS, which two processes can make too."""
    names: dict[str, Any] = {}
    exec(COLOURS, names)
    return names["Colours"]()


@pytest.fixture(scope="module")
def val(scenes_cache: Path) -> PackedSplit:
    """Five images whose labels are twice as large as the input."""
    return pack(open_dataset(CONFIG, None, scenes_cache), CONFIG, "val", scenes_cache)


def by_hand(val: PackedSplit, protocol: str) -> Tensor:
    """The matrix, image by image."""
    matrix = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for i in range(len(val)):
        image = torch.from_numpy(val.images([i])).permute(0, 3, 1, 2).float() / 255
        logits = colours()(image).logits
        label = val.native_label(i)
        if protocol == "full":
            logits = torch.nn.functional.interpolate(logits, size=label.shape, mode="bilinear", align_corners=False)
        else:
            label = quarter_label(label, (64, 128))
        matrix += confusion(logits.argmax(1)[0], torch.from_numpy(label.copy()), CLASSES, CLASSES)
    return matrix


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
def test_the_batch_of_validation_moves_nothing(batch: int, val: PackedSplit) -> None:
    assert evaluate(colours(), val, NAMES, CONFIG, ("full", "paper"), batch=batch) == evaluate(
        colours(), val, NAMES, CONFIG, ("full", "paper")
    )


@pytest.mark.parametrize("protocol", ["full", "paper"])
def test_every_valid_pixel_is_judged_once(protocol: str, val: PackedSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    """`full` judges the label's own pixels, `paper` those of a label at a quarter of the input."""
    matrices: list[Tensor] = []
    summary = metrics.summary

    def watched(matrix: Tensor, *rest: Any, **named: Any) -> dict[str, float]:
        matrices.append(matrix)
        return summary(matrix, *rest, **named)

    monkeypatch.setattr(metrics, "summary", watched)
    evaluate(colours(), val, NAMES, CONFIG, (protocol,))
    (matrix,) = matrices
    assert torch.equal(matrix, by_hand(val, protocol))
    labels = [val.native_label(i) for i in range(5)]
    assert labels[0].shape == (128, 256)
    judged = labels if protocol == "full" else [quarter_label(label, (64, 128)) for label in labels]
    assert matrix.sum().item() == sum(int((label != IGNORE).sum()) for label in judged)


def test_protocols_treat_absent_classes_as_named(val: PackedSplit) -> None:
    one = np.array([0])  # in one image some classes are absent
    found = evaluate(colours(), val, NAMES, CONFIG, ("full", "paper"), indices=one)
    for where in ("val", "val/paper"):
        values = [value for name, value in found.items() if name.startswith(f"{where}/iou/")]
        assert len(values) == found[f"{where}/classes_present"] < CLASSES
        mean = sum(values) / (CLASSES if where == "val/paper" else len(values))
        assert found[f"{where}/miou"] == pytest.approx(mean, rel=1e-12)
    first = evaluate(colours(), val, NAMES, CONFIG, ("paper", "full"), indices=one)
    assert (first["val/miou"], first["val/full/miou"]) == (found["val/paper/miou"], found["val/miou"])


def test_a_chosen_few_are_judged_alone(val: PackedSplit) -> None:
    chosen = evaluate(colours(), val, NAMES, CONFIG, ("full",), indices=np.array([1, 3]), prefix="select")
    assert {name.split("/")[0] for name in chosen} == {"select"}
    whole = evaluate(colours(), val, NAMES, CONFIG, ("full",))
    assert chosen["select/miou"] != whole["val/miou"]


CONDITIONS = {"dry": np.array([0, 3]), "wet": np.array([1])}


def test_conditions_sum_to_the_whole(val: PackedSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what has no condition, and that is judged too."""
    matrices: dict[str, Tensor] = {}
    summary = metrics.summary

    def watched(matrix: Tensor, names: tuple[str, ...], prefix: str, **rest: Any) -> dict[str, float]:
        matrices[prefix] = matrix
        return summary(matrix, names, prefix, **rest)

    monkeypatch.setattr(metrics, "summary", watched)
    evaluate(colours(), val, NAMES, CONFIG, ("full", "paper"), conditions=CONDITIONS)
    evaluate(colours(), val, NAMES, CONFIG, ("full",), indices=np.array([2, 4]), prefix="rest")
    assert set(matrices) == {"val", "val/dry", "val/wet", "val/paper", "rest"}
    assert torch.equal(matrices["val/dry"] + matrices["val/wet"] + matrices["rest"], matrices["val"])
    assert torch.equal(matrices["val"], by_hand(val, "full"))
    assert torch.equal(matrices["val/paper"], by_hand(val, "paper"))


@pytest.mark.parametrize("protocol", ["full", "paper"])
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_condition_is_judged_as_if_alone(protocol: str, batch: int, val: PackedSplit) -> None:
    """By the first protocol, whatever the batch: the mIoU of its pictures, and how many classes they show."""
    found = evaluate(colours(), val, NAMES, CONFIG, (protocol,), conditions=CONDITIONS, batch=batch)
    for name, members in CONDITIONS.items():
        alone = evaluate(colours(), val, NAMES, CONFIG, (protocol,), indices=members)
        for kind in ("miou", "classes_present"):
            assert found[f"val/{name}/{kind}"] == alone[f"val/{kind}"]
    whole = evaluate(colours(), val, NAMES, CONFIG, (protocol,))
    assert {name: value for name, value in found.items() if "dry" not in name and "wet" not in name} == whole


def test_the_mode_of_the_model_is_left_as_it_was(val: PackedSplit) -> None:
    for training in (True, False):
        model = colours().train(training)
        seen: list[bool] = []
        model.register_forward_hook(lambda module, *_, seen=seen: seen.append(module.training))
        evaluate(model, val, NAMES, CONFIG, ("full",))
        assert seen == [False]
        assert model.training is training


def test_bf16_is_the_networks_alone(val: PackedSplit) -> None:
    """The logits come back as float32 before anything is upsampled or compared."""

    class Half(SegModel):
        def __init__(self) -> None:
            super().__init__()
            self.channels = Channels((), (), (), CLASSES)
            self.layer = torch.nn.Conv2d(3, CLASSES, 4, 4)

        def forward(self, image: Tensor, keys: Tensor | None = None, needs: Any = None) -> SegOutput:
            logits = self.layer(image)
            seen.append(logits.dtype)
            return SegOutput(logits, (), ())

    seen: list[torch.dtype] = []
    found = evaluate(Half(), val, NAMES, CONFIG, ("full",), autocast=torch.autocast("cpu", torch.bfloat16))
    assert seen == [torch.bfloat16]
    assert 0 <= found["val/miou"] <= 100


EVALUATE = """
from pathlib import Path
import numpy as np
from trainer.config import DataConfig
from trainer.data import open_dataset, pack
from trainer.training.evaluation.evaluate import evaluate

config, cache = DataConfig.model_validate(job["config"]), Path(job["cache"])
val = pack(open_dataset(config, None, cache), config, "val", cache)
names = tuple(f"class{i}" for i in range(19))
conditions = {"dry": np.array([0, 3]), "wet": np.array([1])}
metrics = evaluate(Colours(), val, names, config, ("full", "paper"), conditions=conditions)
Path(job["out"] + str(rank)).write_text(json.dumps(metrics))
"""


@pytest.mark.slow
def test_two_workers_judge_five_images_as_one_does(
    val: PackedSplit, in_workers: Callable[..., None], scenes_cache: Path, tmp_path: Path
) -> None:
    job = {"config": CONFIG.model_dump(mode="json"), "cache": str(scenes_cache), "out": str(tmp_path / "metrics")}
    in_workers(COLOURS + EVALUATE, job)
    expected = evaluate(colours(), val, NAMES, CONFIG, ("full", "paper"), conditions=CONDITIONS)
    for rank in (0, 1):
        assert json.loads((tmp_path / f"metrics{rank}").read_text()) == expected
