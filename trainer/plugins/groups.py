"""REGISTRIES: what plugins may add to, and what each entry must be. A group is a line here and in config/plugin.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from trainer.config import UserError, message_of
from trainer.config.plugin import GROUPS
from trainer.data import DATASETS, SegDataset
from trainer.data.augmentations import AUGMENTATIONS, Augmentation
from trainer.distill import DISTILLERS
from trainer.distill.base import Distiller
from trainer.losses import LOSSES
from trainer.models import MODELS
from trainer.models.base import EVERYTHING


class Registry(NamedTuple):
    """A dictionary of ours and the check of an entry, which raises UserError with the rest of a sentence."""

    entries: dict[str, Any]
    check: Callable[[Any], None]
    ours: frozenset[str]
    losses: frozenset[str]
    """Names of our task losses, where entries would be shown beside them."""


def _check_distiller(entry: Any) -> None:
    _check_class(entry, Distiller, "trainer.distill.base")
    if not entry.needs:
        raise UserError("must say what it reads of the teacher, for example `needs = FEATURES`, but needs is empty")
    if not isinstance(entry.needs, frozenset | set) or not entry.needs <= EVERYTHING:
        raise UserError(f"must have `needs` of LOGITS, FEATURES, EMBEDS (trainer.models.base), but has {entry.needs!r}")
    _check_method(entry, Distiller, "forward")


def _check_model(entry: Any) -> None:
    if not callable(entry):
        raise UserError(f"must be a class or function that builds a SegModel, but is {entry!r}")
    try:
        inspect.signature(entry).bind(19, drop_path=0.1, dropout=0.1)
    except (TypeError, ValueError) as error:
        raise UserError(f"must take (num_classes, drop_path=0.1, dropout=0.1), but {message_of(error)}") from None


def _check_dataset(entry: Any) -> None:
    _check_class(entry, SegDataset, "trainer.data.base")
    for name in ("find", "table") if entry.read_label is SegDataset.read_label else ("find",):
        _check_method(entry, SegDataset, name)
    for name in ("classes", "palette"):
        if not getattr(entry, name, None):
            raise UserError(f"must have `{name}`, one for each class; add it to the class")


def _check_step(entry: Any) -> None:
    _check_class(entry, Augmentation, "trainer.data.augmentations.base")
    _check_method(entry, Augmentation, "__call__")


def _check_method(entry: type, base: type, name: str) -> None:
    if getattr(entry, name) is getattr(base, name):
        raise UserError(f"must implement {name}(), which {base.__name__} declares; write it")


def _check_class(entry: Any, base: type, module: str) -> None:
    if not (isinstance(entry, type) and issubclass(entry, base)):
        raise UserError(f"must be a class derived from {base.__name__} ({module}), but is {entry!r}")


REGISTRIES = {
    group: Registry(entries, check, frozenset(entries), frozenset(LOSSES if group == "DISTILLERS" else ()))
    for group, entries, check in (
        ("DISTILLERS", DISTILLERS, _check_distiller),
        ("MODELS", MODELS, _check_model),
        ("DATASETS", DATASETS, _check_dataset),
        ("AUGMENTATIONS", AUGMENTATIONS, _check_step),
    )
}
assert REGISTRIES.keys() == GROUPS.keys()
