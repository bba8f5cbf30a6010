"""One confusion matrix: the published evaluator's numbers, and what is and is not counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from trainer.config import IGNORE
from trainer.training.evaluation.metrics import confusion, iou, summary

NAMES = tuple(f"class{i}" for i in range(19))


def test_published_evaluator(golden: Any) -> None:
    """20 outputs, the last of them void: never true, and a miss where predicted. Absent classes count as 0."""
    arrays = golden("metric_ioueval")
    matrix = torch.zeros(19, 20, dtype=torch.int64)
    for k in range(3):
        prediction, label = torch.from_numpy(arrays[f"pred{k}"]), torch.from_numpy(arrays[f"gt{k}"])
        matrix += confusion(prediction, label, 19, 20)
        values = torch.nan_to_num(iou(matrix))
        np.testing.assert_allclose(values.numpy(), arrays[f"iou_after{k}_f64"], rtol=0, atol=1e-12)
        result = summary(matrix, NAMES, "val", absent_is_zero=True)
        assert result["val/miou"] == pytest.approx(100 * float(arrays[f"miou_after{k}_f64"]), abs=1e-10)
    hit = matrix.diagonal()
    assert hit.tolist() == arrays["tp_f64"].tolist()
    assert (matrix[:, :19].sum(0) - hit).tolist() == arrays["fp_f64"].tolist()
    assert (matrix.sum(1) - hit).tolist() == arrays["fn_f64"].tolist()


def test_a_class_absent_from_the_labels_is_left_out_unless_it_is_to_be_0(golden: Any) -> None:
    arrays = golden("metric_ioueval")
    matrix = confusion(torch.from_numpy(arrays["pred0"]), torch.from_numpy(arrays["gt0"]), 19, 20)
    absent = np.flatnonzero(matrix.sum(1).numpy() == 0).tolist()
    assert absent == [7]
    result = summary(matrix, NAMES, "val", absent_is_zero=False)
    assert result["val/miou"] == pytest.approx(100 * float(arrays["iou_after0_f64"].sum()) / 18, abs=1e-10)
    assert result["val/classes_present"] == 18
    assert "val/iou/class7" not in result
    assert result["val/iou/class3"] == pytest.approx(100 * float(arrays["iou_after0_f64"][3]), abs=1e-10)


def test_the_matrix_counts_every_valid_pixel_once_and_no_other() -> None:
    prediction = torch.tensor([[0, 1, 2], [3, 1, 0]])
    label = torch.tensor([[0, 1, 1], [1, IGNORE, 2]], dtype=torch.uint8)
    matrix = confusion(prediction, label, 3, 4)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == [[1, 0, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]]


def test_iou_by_hand() -> None:
    matrix = torch.tensor([[3, 1, 0, 0], [1, 2, 0, 1], [0, 0, 0, 0]])
    values = iou(matrix)
    assert values[:2].tolist() == [3 / 5, 2 / 5]
    assert values[2].isnan()


@pytest.mark.parametrize("absent_is_zero", [False, True])
def test_without_a_labelled_pixel_there_is_no_miou(absent_is_zero: bool) -> None:
    result = summary(torch.zeros(2, 2, dtype=torch.int64), ("a", "b"), "val", absent_is_zero)
    assert result == {"val/classes_present": 0.0}
