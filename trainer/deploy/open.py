"""A trained student, opened from its checkpoint to be evaluated, shown or exported."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from trainer.config import Normalize, TrainConfig, UserError, override, parse, read_yaml
from trainer.data import dataset_class
from trainer.data.base import SegDataset
from trainer.files import checkpoint, run_folder
from trainer.measure.device import pick_device
from trainer.models import SegModel
from trainer.training.networks import file_digest, load_network
from trainer.weights import open_weights


class Wanted(NamedTuple):
    """What a user says of a checkpoint; None leaves it to the config beside the file, or to the file itself."""

    config: Path | None = None
    model: str | None = None
    data: str | None = None
    size: tuple[int, int] | None = None
    normalize: Normalize | None = None


class Student(NamedTuple):
    """A network without any of its training: no distiller, no optimiser."""

    model: SegModel
    config: TrainConfig  # of its run, or made of what the user said
    dataset: type[SegDataset]  # whose classes its first K outputs are
    origin: dict[str, str | float]  # checkpoint, sha256 and, where known, run_id, epoch, val/miou
    format: str  # whose names the file uses
    scaled_by: str  # who said how images are normalised

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    @property
    def described(self) -> str:
        """In words: the file, the network and, where they are known, run and epoch."""
        words = [str(self.origin["checkpoint"]), self.config.student.name]
        words += [f"run {self.origin['run_id']}"] if "run_id" in self.origin else []
        words += [f"epoch {self.origin['epoch']:.0f}"] if "epoch" in self.origin else []
        return ", ".join(words)

    @property
    def read_as(self) -> str:
        """In words: what the file was taken for, which decides what its numbers mean."""
        words = [self.format, f"normalize {self.config.data.normalize} (from {self.scaled_by})"]
        outputs = self.model.channels.classes
        words += [f"{outputs} outputs, the last void"] if outputs > len(self.dataset.classes) else []
        return ", ".join(words)

    @property
    def autocast(self) -> torch.autocast:
        """The precision that its run validated in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.optim.precision == "bf16")


def open_student(path: Path, wanted: Wanted, device: str) -> Student:
    """The student of a checkpoint, in evaluation mode on `device`. Raises UserError for what does not fit."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a checkpoint in it, for example {path / run_folder.BEST}")
    if not path.exists():
        raise UserError(f"no such checkpoint: {path}")
    torch_device = pick_device(device)
    config = resolve_config(path, wanted)
    dataset = dataset_class(config.data.name)
    model = load_network(config.student, path, len(dataset.classes))
    weights = open_weights(path, model)
    scaled_by = "the config" if wanted.normalize is None else "--normalize"
    if wanted.model is not None and wanted.normalize is None:  # nobody said, so the weights do
        if weights.normalize is None:
            raise UserError(f"{path} does not tell what its images were scaled to; give --normalize unit or imagenet")
        config = parse(override(config.model_dump(mode="json"), {"data.normalize": weights.normalize}))
        scaled_by = "the weights' family"
    return Student(model.to(torch_device).eval(), config, dataset, origin(path), weights.format, scaled_by)


def run_config(path: Path, wanted: Wanted) -> TrainConfig | None:
    """The config of a checkpoint's own run, unchanged: the one beside it, else the user's, else none."""
    beside = path.with_name("config.yaml")
    source = beside if beside.exists() else wanted.config
    return None if source is None else parse(read_yaml(source), str(source))


def resolve_config(path: Path, wanted: Wanted) -> TrainConfig:
    """The config a checkpoint was trained by, changed as wanted; made of what is wanted where it has none."""
    if wanted.config is not None and wanted.model is not None:
        raise UserError("--config and --model exclude each other: a config names its network; leave one out")
    source = wanted.config or path.with_name("config.yaml")
    if wanted.model is not None:
        return _config_from_options(wanted.model, wanted)
    if wanted.config is None and not source.exists():
        raise UserError(
            f"{path} has no config.yaml beside it; give --config FILE, or --model NAME --data NAME --size HxW"
        )
    known = parse(read_yaml(source), str(source))
    changes: dict[str, object] = {}
    if wanted.data is not None and wanted.data != known.data.name:
        if dataset_class(wanted.data).classes != dataset_class(known.data.name).classes:
            raise UserError(
                f"--data {wanted.data}: its classes are not those of {known.data.name}, which {path} was trained for"
            )
        changes |= {"data.name": wanted.data, "data.options": {}}
    if wanted.size is not None:
        changes["data.size"] = list(wanted.size)
    if wanted.normalize is not None:
        changes["data.normalize"] = wanted.normalize
    return parse(override(known.model_dump(mode="json"), changes), "the options") if changes else known


def _config_from_options(name: str, wanted: Wanted) -> TrainConfig:
    if wanted.data is None or wanted.size is None:
        missing = "--data NAME" if wanted.data is None else "--size HxW"
        raise UserError(f"--model {name} also needs {missing}: without a config nothing else says what it was made for")
    data = {"name": wanted.data, "size": wanted.size, "normalize": wanted.normalize or "imagenet"}
    return parse({"student": {"name": name}, "data": data}, "the options")


def origin(path: Path) -> dict[str, str | float]:
    """The sha256 of a checkpoint and, of one of ours, its run, its epoch and the `val/miou` recorded with it."""
    known: dict[str, str | float] = {"checkpoint": str(path), "sha256": file_digest(path)}
    result = run_folder.read_result(path.parent)
    try:
        state = checkpoint.load(path)
    except UserError:  # a format of others, which `open_weights` has read
        return known
    if "history" in state and "run_id" in state:  # last.pt
        known["run_id"] = state["run_id"]
        state = state["history"][-1]
    elif result is not None:
        known["run_id"] = result["run_id"]
    return known | {name: state[name] for name in ("epoch", "val/miou") if isinstance(state.get(name), float)}
