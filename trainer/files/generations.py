"""The two generations of a run's checkpoint: the last, and the one before it for when the last cannot be read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from trainer.files import checkpoint
from trainer.files.run_folder import LAST, PREVIOUS, append_note

LOG = logging.getLogger(__name__)


def save(out: Path, state: dict[str, Any]) -> None:
    """Make `state` the last generation and the one that was last the previous. A kill at any moment leaves one that is
    whole; both hold the optimiser, so a run that trains needs the room of two."""
    checkpoint.save(out / LAST, state, previous=out / PREVIOUS)


def restore(out: Path, device: torch.device, is_rank_zero: bool) -> dict[str, Any] | None:
    """The newest generation that can be read, or None where a run has to begin.

    What is damaged is told in the log and in the run's notes, and removed, by worker 0. Raises UserError
    where a checkpoint is whole and cannot be read for another reason.
    """
    damaged = []
    state = None
    for name in (LAST, PREVIOUS):
        try:
            state = checkpoint.load(out / name, device)
            break
        except checkpoint.MissingError:  # it never was, or the worker that is_rank_zero has just removed it
            continue
        except checkpoint.DamagedError:
            damaged.append(name)
    if damaged and is_rank_zero:
        _report_damage(out, damaged, state)
    return state


def delete_previous(out: Path) -> None:
    """A run has finished: nobody goes back any more."""
    (out / PREVIOUS).unlink(missing_ok=True)


def _report_damage(out: Path, damaged: list[str], state: dict[str, Any] | None) -> None:
    epoch = len(state["history"]) if state else 0
    what = f"went on after epoch {epoch}, from the one before it" if state else "began again"
    text = f"checkpoint {' and '.join(damaged)} could not be read; {what}"
    LOG.warning("%s: %s", out, text)
    append_note(out, text)
    for name in damaged:
        (out / name).unlink(missing_ok=True)
