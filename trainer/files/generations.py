"""A run's two checkpoints, last.pt and previous.pt: the second is read when the first is damaged."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from trainer.files import checkpoint
from trainer.files.run_folder import LAST, PREVIOUS, append_note

LOG = logging.getLogger(__name__)


def save(out: Path, state: dict[str, Any]) -> None:
    """Write `state` to last.pt; the last.pt before it becomes previous.pt.

    A kill at any moment leaves at least one whole file. Both hold the optimiser's state, so a training run needs disk
    space for two.
    """
    checkpoint.save(out / LAST, state, previous=out / PREVIOUS)


def restore(out: Path, device: torch.device, is_rank_zero: bool) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None where the run has to start from the beginning.

    Worker 0 logs a damaged checkpoint, adds it to the run's notes and deletes it. Raises UserError when a checkpoint is
    whole but cannot be read for another reason.
    """
    damaged = []
    state = None
    for name in (LAST, PREVIOUS):
        try:
            state = checkpoint.load(out / name, device)
            break
        except checkpoint.MissingError:  # never written, or just deleted by worker 0
            continue
        except checkpoint.DamagedError:
            damaged.append(name)
    if damaged and is_rank_zero:
        _report_damage(out, damaged, state)
    return state


def delete_previous(out: Path) -> None:
    """Delete a finished run's backup checkpoint."""
    (out / PREVIOUS).unlink(missing_ok=True)


def _report_damage(out: Path, damaged: list[str], state: dict[str, Any] | None) -> None:
    what = "started again from the beginning"
    if state is not None:
        epoch, steps = len(state["history"]), checkpoint.steps_within_epoch(state)
        what = f"resumed after {f'step {steps} of epoch {epoch + 1}' if steps else f'epoch {epoch}'} from {PREVIOUS}"
    text = f"checkpoint {' and '.join(damaged)} could not be read; {what}"
    LOG.warning("%s: %s", out, text)
    append_note(out, text)
    for name in damaged:
        (out / name).unlink(missing_ok=True)
