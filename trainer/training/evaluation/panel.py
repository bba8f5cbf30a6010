"""The panel: image, ground truth and prediction of a few fixed validation images, in one PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainer.config import TrainConfig
from trainer.data.arrays import as_rgb
from trainer.models.base import SegModel
from trainer.training.build import Data
from trainer.training.evaluation.inference import logits_of
from trainer.training.evaluation.prediction import class_of

ROWS = 4
GAP = 4


def colour(label: np.ndarray, palette: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    """RGB (H, W, 3) uint8 of a label (H, W); values that are no class are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = palette
    return table[label]


@torch.no_grad()
def save_panel(path: Path, student: SegModel, data: Data, config: TrainConfig) -> None:
    """Write a PNG with ROWS images spaced evenly over val, one per row: image, ground truth, prediction."""
    chosen = np.unique(np.linspace(0, len(data.val) - 1, ROWS).round().astype(int))
    student.eval()
    height, width = config.data.size
    rows = []
    for index in chosen:
        images = data.val.images(np.array([index]))
        views = logits_of(student, images, config.data, next(student.parameters()).device, how=config.eval)
        label = data.val.native_label(int(index))
        prediction = class_of(views, label.shape)[0].cpu().numpy().astype(np.uint8)
        masks = [colour(x, data.dataset.palette) for x in (label, prediction)]
        shown = [np.asarray(Image.fromarray(m).resize((width, height), Image.Resampling.NEAREST)) for m in masks]
        strip = np.full((GAP, width, 3), 255, dtype=np.uint8)
        cells = [np.concatenate([cell, strip]) for cell in (as_rgb(images[0]), *shown)]
        gap = np.full((height + GAP, GAP, 3), 255, dtype=np.uint8)
        rows.append(np.concatenate([cells[0], gap, cells[1], gap, cells[2]], axis=1))
    Image.fromarray(np.concatenate(rows)).save(path)
