"""Load public and own checkpoints into our networks; formats are recognised by their entries."""

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
"""Family of networks -> namings of its weights, our own first; the first that matches is used."""

_HEADS = ("linear_", "neck.", "head.", "decode_head.", "auxiliary_head.", "classifier.")
"""Prefixes of entries of segmentation and classification heads; all others belong to the backbone."""

_CLASSIFIERS = ("linear_pred.bias", "head.conv_seg.bias")

_REFERENCE_OUTPUTS = 20
"""The reference's networks have Cityscapes' 19 classes and void as outputs."""


class Weights(NamedTuple):
    """A file's entries under the names of one network, and the format they came in."""

    path: Path
    state: Mapping[str, Tensor]
    format: str
    normalize: Normalize | None
    remark: str

    @property
    def outputs(self) -> int | None:
        """Number of outputs of the classifier; None for a backbone."""
        return next((len(self.state[name]) for name in _CLASSIFIERS if name in self.state), None)

    def cover(self, model: SegModel, what: Literal["all", "backbone"], *, partial: bool = False) -> Coverage:
        """Which entries of `model`, or of its backbone, the file has. Raises UserError unless it has all.

        With `partial` one entry suffices.
        """
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
            remedy = "its names are of no known format; docs/names.md lists the known ones"
        raise UserError(f"{self.path} ({self.format}) does not fit the {part}: {coverage}; {remedy}")

    def load(self, model: SegModel, what: Literal["all", "backbone"], *, partial: bool = False) -> Coverage:
        """Copy the covered entries into `model`, which is unchanged when this raises UserError."""
        coverage = self.cover(model, what, partial=partial)
        for name in coverage.loaded:
            if not self.state[name].isfinite().all():
                raise UserError(f"{self.path}: {name} holds numbers that are not finite; take another checkpoint")
        model.load_state_dict({name: self.state[name] for name in coverage.loaded}, strict=False)
        return coverage


def load_weights(model: SegModel, path: Path, *, what: Literal["all", "backbone"], partial: bool = False) -> Coverage:
    """Copy a checkpoint's entries into `model`, all or the backbone's, and return what was copied.

    `partial` accepts a file with only some of them. Raises UserError, without changing the model, when the file is no
    checkpoint or of another family, or when an entry is missing, unexpected or of another shape.
    """
    return open_weights(path, model).load(model, what, partial=partial)


def open_weights(path: Path, model: SegModel) -> Weights:
    """The file's entries under the names of `model`, which may be on the meta device."""
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
