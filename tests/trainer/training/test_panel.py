"""The panel: four validation images beside their truth and a prediction, at their place and in their colours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from trainer.config import IGNORE
from trainer.training.build import build_distilled, open_data
from trainer.training.evaluation.panel import GAP, ROWS, colour, save_panel

Make = Callable[..., Any]


def test_colours_are_the_classes_and_the_rest_is_black() -> None:
    picture = colour(np.array([[0, 1], [IGNORE, 2]], np.uint8), ((1, 2, 3), (4, 5, 6)))
    assert picture.tolist() == [[[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [0, 0, 0]]]


def test_rows_are_evenly_spaced_images_with_truth_and_prediction(tiny: Make, place: Make) -> None:
    config = tiny()
    data = open_data(config, place())
    student = build_distilled(config, None, data).student
    path = place().out_dir.parent / "panel.png"
    save_panel(path, student, data, config)
    picture = np.asarray(Image.open(path))
    assert picture.shape == (ROWS * (64 + GAP), 3 * 128 + 2 * GAP, 3)
    for row, index in enumerate((0, 1, 3, 4)):
        image, truth, prediction = (
            picture[row * (64 + GAP) : row * (64 + GAP) + 64, column * (128 + GAP) :][:, :128] for column in range(3)
        )
        np.testing.assert_array_equal(image, data.val.images([index])[0])
        np.testing.assert_array_equal(truth, colour(data.val.native_label(index), data.dataset.palette))
        assert {tuple(pixel) for pixel in prediction.reshape(-1, 3)} <= set(data.dataset.palette)
