"""Public and own checkpoints into our networks: recognised by their entries, and refused when they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor

from trainer.config import Normalize, UserError
from trainer.models.base import SegModel
from trainer.weights import lvt, pvtv2, segformer
from trainer.weights.coverage import Coverage, compare
from trainer.weights.naming import Naming, recognise
from trainer.weights.read import Content, read

__all__ = ["Coverage", "Weights", "load_weights", "open_weights"]

NAMINGS: dict[str, tuple[Naming, ...]] = {
    "SegFormer": segformer.NAMINGS,
    "PVTv2": pvtv2.NAMINGS,
    "LVT": lvt.NAMINGS,
}
"""Families of networks -> namings of their weights, the network's own first; of those that match, the first counts."""

_HEADS = ("linear_", "neck.", "head.", "decode_head.", "auxiliary_head.", "classifier.")
"""First words of the names of segmentation and classification heads; all other entries are the backbone's."""

_CLASSIFIERS = ("linear_pred.bias", "head.conv_seg.bias")

_REFERENCE_OUTPUTS = 20
"""The reference's networks have Cityscapes' 19 classes and void."""


class Weights(NamedTuple):
    """A file's entries in the names of one network, and whose naming it was."""

    path: Path
    state: Mapping[str, Tensor]
    format: str
    normalize: Normalize | None
    remark: str

    @property
    def outputs(self) -> int | None:
        """Rows of the classifier; None for a backbone."""
        return next((len(self.state[name]) for name in _CLASSIFIERS if name in self.state), None)

    def cover(self, model: SegModel, what: Literal["all", "backbone"], *, partial: bool = False) -> Coverage:
        """What of `model`, or of its backbone, the file gives. Raises UserError when that is not all, or is nothing."""
        source, target = self.state, model.state_dict()
        if what == "backbone":
            source, target = _backbone(source), _backbone(target)
        coverage = compare(source, target, self.format, self.normalize)
        if coverage.complete or (partial and coverage.loaded):
            return coverage
        part, remedy = "network", self.remark or "name the model and classes it was made for"
        if coverage.loaded and self.outputs is None:
            remedy = self.remark or "it holds a backbone and no head, so it is for student.init or teacher.train.init"
        if what == "backbone":
            part, remedy = "backbone", "name the model it was made for, or load what fits with `partial: true`"
        if not coverage.loaded:
            remedy = "its names are of no kind that is known here; docs/names.md lists those that are"
        raise UserError(f"{self.path} ({self.format}) does not fit the {part}: {coverage}; {remedy}")

    def load(self, model: SegModel, what: Literal["all", "backbone"], *, partial: bool = False) -> Coverage:
        """Copy into `model` what `cover` finds, leaving the model as it was when that raises."""
        coverage = self.cover(model, what, partial=partial)
        for name in coverage.loaded:
            if not self.state[name].isfinite().all():
                raise UserError(f"{self.path}: {name} holds numbers that are not finite; take another checkpoint")
        model.load_state_dict({name: self.state[name] for name in coverage.loaded}, strict=False)
        return coverage


def load_weights(model: SegModel, path: Path, *, what: Literal["all", "backbone"], partial: bool = False) -> Coverage:
    """Copy a checkpoint's entries into `model`, all of them or the backbone's, and say what was copied.

    `partial` takes what fits of a file that is not whole. Raises UserError, leaving the model as it was, when the file
    is no checkpoint, is of another family, or when anything asked for is missing, left over or of another shape.
    """
    return open_weights(path, model).load(model, what, partial=partial)


def open_weights(path: Path, model: SegModel) -> Weights:
    """The file's entries in the names of `model`, which may be on the meta device."""
    content = read(path)
    ours = set(model.state_dict())
    if content.wrapper == "model" and ours <= content.state.keys():
        return Weights(path, content.state, "this program", None, "")
    naming = _recognise(path, content, ours)
    if naming is None:
        return Weights(path, content.state, "an unknown naming", None, "")
    found = Weights(path, naming.translate(content.state), naming.title, naming.normalize, naming.remark)
    if naming.shared and not content.marked and found.outputs != _REFERENCE_OUTPUTS:
        return found._replace(normalize=None)
    return found


def _recognise(path: Path, content: Content, ours: set[str]) -> Naming | None:
    family = next((family for family, namings in NAMINGS.items() if namings[0].matches(ours)), None)
    found = recognise(content.state, NAMINGS.get(family or "", ()))
    if found is not None:
        return found
    for other, namings in NAMINGS.items():
        found = recognise(content.state, namings)
        if found is not None and family is not None:
            raise UserError(
                f"{path} holds weights of a {other} ({found.title}), but the network is a {family}; "
                "name the model it was made for"
            )
    return None


def _backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(_HEADS)}
