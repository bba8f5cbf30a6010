"""Load public and own checkpoints into our networks; formats are recognised by their entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor

from trainer.config import Normalize, UserError
from trainer.models.base import SegModel
from trainer.models.inputs import adapt_state
from trainer.models.timm_pyramid import TimmPyramid
from trainer.weights import lvt, pvtv2, segformer
from trainer.weights.coverage import COUNTER, Coverage, compare
from trainer.weights.naming import Located, Naming, recognise
from trainer.weights.read import check_numbers, read
from trainer.weights.timm import aliases

__all__ = ["Coverage", "Weights", "load_weights", "open_weights"]

NAMINGS: dict[str, tuple[Naming, ...]] = {
    "SegFormer": segformer.NAMINGS,
    "PVTv2": pvtv2.NAMINGS,
    "LVT": lvt.NAMINGS,
}
"""Family of networks -> namings of its weights, our own first; the first that matches is used."""

_HEADS = (*SegModel.head_names, "decode_head.", "auxiliary_head.", "classifier.")
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
            for name in coverage.loaded:
                check_numbers(self.path, name, source[name], target[name].dtype)
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
        model.load_state_dict({name: self.state[name] for name in coverage.loaded}, strict=False)
        return coverage


def load_weights(model: SegModel, path: Path, *, what: Literal["all", "backbone"], partial: bool = False) -> Coverage:
    """Copy a checkpoint's entries into `model`, all or the backbone's, and return what was copied.

    `partial` accepts a file with only some of them. Raises UserError, without changing the model, when the file is no
    checkpoint or of another family, or when an entry is missing, unexpected or of another shape.
    """
    return open_weights(path, model).load(model, what, partial=partial)


def open_weights(path: Path, model: SegModel) -> Weights:
    """The file's entries under the names of `model`, which may be on the meta device.

    They may lie below any prefix: of a dict in the file, of a wrapper of the network, of a training run. Of several
    networks in a file the student is taken, then averaged weights (EMA), and a teacher never before another. Of RGB
    weights, the first patch embedding is adapted to a network for other channels.
    """
    weights = _open(path, model)
    return weights._replace(state=adapt_state(weights.state, model))


def _open(path: Path, model: SegModel) -> Weights:
    entries, ours = read(path), set(model.state_dict())
    family = next((namings for namings in NAMINGS.values() if recognise(ours, namings[:1])), ())
    found = recognise(entries, family)
    if not found:
        _refuse_other_family(path, entries, family)
        if isinstance(model, TimmPyramid):
            names = aliases(ours)
            inside = _below(entries, _fitting(entries, set(names)))
            state = {names[name]: tensor for name, tensor in inside.items() if name in names}
            return Weights(path, state, "this program" if inside.keys() <= ours else "timm", None, "")
        return Weights(path, _below(entries, _fitting(entries, ours)), "an unknown naming", None, "")
    prefix, naming = _choose(path, found)
    state, parts = _below(entries, prefix), prefix.split(".")
    if parts[0] == "model" and {name for name in ours if not name.endswith(COUNTER)} <= state.keys():
        return Weights(path, state, "this program", None, "")
    title = naming.title + (" (averaged weights)" if any(map(_is_average, parts)) else "")
    weights = Weights(path, naming.translate(state), title, naming.normalize, naming.remark)
    marked = {"module", "student"} & set(parts)  # as files of the reference's scripts are
    if naming.shared and not marked and weights.outputs != _REFERENCE_OUTPUTS:
        return weights._replace(normalize=None)
    return weights


def _choose(path: Path, found: list[Located]) -> Located:
    """The network to take of those in a file. Raises UserError where two are equally good."""

    def rank(located: Located) -> tuple[bool, bool, bool, int]:
        parts = located.prefix.split(".")
        return "student" not in parts, "teacher" in parts, not any(map(_is_average, parts)), len(parts)

    first, *others = sorted(found, key=lambda located: (rank(located), located.prefix))
    if others and rank(others[0]) == rank(first):
        raise UserError(
            f"{path} holds two networks, '{first.prefix}' and '{others[0].prefix}'; save the one meant alone"
        )
    return first


def _is_average(part: str) -> bool:
    return "ema" in part.split("_")


def _below(entries: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in entries.items() if name.startswith(prefix)}


def _fitting(entries: Mapping[str, Tensor], ours: set[str]) -> str:
    """The prefix below which most entries have names of a network whose family has no namings; of two such, the
    student's."""
    counts = Counter(name[:start] for name in entries for start in _starts(name) if name[start:] in ours)
    return min(
        counts, key=lambda prefix: (-counts[prefix], "student" not in prefix.split("."), len(prefix)), default=""
    )


def _starts(name: str) -> list[int]:
    return [0, *(at + 1 for at, character in enumerate(name) if character == ".")]


def _refuse_other_family(path: Path, entries: Mapping[str, Tensor], family: tuple[Naming, ...]) -> None:
    """Raise UserError for weights of another family than the network's, if it has one."""
    for other, namings in NAMINGS.items():
        found = recognise(entries, namings)
        if found and family:
            ours = next(name for name, one in NAMINGS.items() if one is family)
            raise UserError(
                f"{path} holds weights of a {other} ({found[0].naming.title}), but the network is a {ours}; "
                "name the model it was made for"
            )


def _backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(_HEADS)}
