"""LOSSES: name -> class. To add a task loss, write one file and add one line here."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.config import Term, located, unknown
from trainer.losses.base import TaskLoss, at_label_size
from trainer.losses.cross_entropy import CrossEntropy
from trainer.losses.dice import Dice
from trainer.losses.focal import Focal
from trainer.losses.lovasz import Lovasz
from trainer.losses.ohem import HardPixels
from trainer.options import check_options

__all__ = ["LOSSES", "TaskLoss", "at_label_size", "build_losses"]

LOSSES: dict[str, type[TaskLoss]] = {
    "ce": CrossEntropy,
    "ohem": HardPixels,
    "focal": Focal,
    "dice": Dice,
    "lovasz": Lovasz,
}


def build_losses(terms: Mapping[str, Term]) -> dict[str, TaskLoss]:
    """The losses with a weight above 0, in the order given.

    Raises UserError with the loss's place in the config for an unknown name or bad options.
    """
    for name in terms:
        if name not in LOSSES:
            raise unknown("loss", name, LOSSES)
    found = {}
    for name, term in terms.items():
        if term.weight > 0:
            check_options(f"loss.{name}", LOSSES[name], term.options)
            with located(f"loss.{name}.options"):
                found[name] = LOSSES[name](**term.options)
    return found
