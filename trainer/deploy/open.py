"""Open a trained student from its checkpoint, to evaluate it, predict with it or export it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from trainer.config import DataConfig, Normalize, TrainConfig, UserError, override, parse, read_yaml, with_plugins
from trainer.data import Facts, facts_of
from trainer.files import checkpoint, run_folder
from trainer.files.file_digest import file_digest
from trainer.files.weight_files import is_weight_folder
from trainer.measure.device import pick_device
from trainer.models import SegModel
from trainer.plugins.load import add
from trainer.training.networks import load_network
from trainer.training.numerics import set_up
from trainer.weights import open_weights


class Wanted(NamedTuple):
    """What the user states about a checkpoint; None means: as in the config beside the file, or as in the file."""

    config: Path | None = None
    model: str | None = None
    data: str | None = None
    size: tuple[int, int] | None = None
    normalize: Normalize | None = None
    predictions: Mapping[str, object] = {}
    """Settings of `eval` that replace those of the config."""


class Student(NamedTuple):
    """A network for inference, without distillers and optimiser."""

    model: SegModel
    config: TrainConfig  # of its run, or built from the user's options
    dataset: Facts  # defines the classes of the first K outputs
    origin: dict[str, str | float]  # as `origin` returns it
    format: str  # the family of checkpoints whose names the file uses
    scaled_by: str  # where the normalisation comes from

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.model.parameters()).device

    @property
    def described(self) -> str:
        """For printing: the file, the network and, where known, run and epoch."""
        words = [str(self.origin["checkpoint"]), self.config.student.name]
        words += [f"run {self.origin['run_id']}"] if "run_id" in self.origin else []
        words += [f"epoch {self.origin['epoch']:.0f}"] if "epoch" in self.origin else []
        return ", ".join(words)

    @property
    def read_as(self) -> str:
        """For printing: the file's format, its normalisation and where that comes from, and a void output."""
        words = [self.format, f"normalize {self.config.data.normalize} (from {self.scaled_by})"]
        outputs = self.model.channels.classes
        words += [f"{outputs} outputs, the last void"] if outputs > len(self.dataset.classes) else []
        return ", ".join(words)

    @property
    def autocast(self) -> torch.autocast:
        """The precision of its run's validation."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.optim.precision == "bf16")


def open_student(path: Path, wanted: Wanted, device: str) -> Student:
    """The student of a checkpoint, in evaluation mode on `device`. Raises UserError for options that do not fit."""
    if path.is_dir() and not is_weight_folder(path):
        raise UserError(
            f"{path} is a folder; give a checkpoint in it: {run_folder.LAST} (the last epoch, which tables are of) or "
            f"{run_folder.BEST} (the epoch with the highest val/miou)"
        )
    if not path.exists():
        raise UserError(f"no such checkpoint: {path}")
    torch_device = pick_device(device)
    config = resolve_config(path, wanted)
    if torch_device.type == "cuda":  # a CPU computes in float32 what was trained with TF32
        set_up(config.optim.precision, False, torch_device)
    dataset = facts_of(config.data)
    model = load_network(config.student, path, len(dataset.classes), dataset.channels)
    weights = open_weights(path, model)
    scaled_by = "the config" if wanted.normalize is None else "--normalize"
    if wanted.model is not None and wanted.normalize is None:  # then take what this family was trained with
        if weights.normalize is None:
            raise UserError(f"{path} does not tell its normalisation; give --normalize unit or imagenet")
        config = parse(override(config.whole(), {"data.normalize": weights.normalize}))
        scaled_by = "the weights' family"
    return Student(model.to(torch_device).eval(), config, dataset, origin(path), weights.format, scaled_by)


def run_config(path: Path, wanted: Wanted) -> TrainConfig | None:
    """The unchanged config of a checkpoint's run: the config.yaml beside it, else --config, else None."""
    beside = path.with_name("config.yaml")
    source = beside if beside.exists() else wanted.config
    return None if source is None else _read(source)


def resolve_config(path: Path, wanted: Wanted) -> TrainConfig:
    """A checkpoint's config with the user's changes; with --model, a config built from the options alone."""
    if wanted.config is not None and wanted.model is not None:
        raise UserError("--config and --model exclude each other: a config names its network; leave one out")
    source = wanted.config or path.with_name("config.yaml")
    if wanted.model is not None:
        return _config_from_options(wanted.model, wanted)
    if wanted.config is None and not source.exists():
        raise UserError(
            f"{path} has no config.yaml beside it; give --config FILE, or --model NAME --data NAME --size HxW"
        )
    known = _read(source)
    changes: dict[str, object] = {}
    if wanted.data is not None and wanted.data != known.data.name:
        if facts_of(DataConfig(name=wanted.data)).classes != facts_of(known.data).classes:
            raise UserError(
                f"--data {wanted.data}: its classes are not those of {known.data.name}, which {path} was trained for"
            )
        changes |= {"data.name": wanted.data, "data.options": {}}
    if wanted.size is not None:
        changes["data.size"] = list(wanted.size)
    if wanted.normalize is not None:
        changes["data.normalize"] = wanted.normalize
    changes |= {f"eval.{name}": value for name, value in wanted.predictions.items()}
    return _known(override(known.whole(), changes)) if changes else known


def _config_from_options(name: str, wanted: Wanted) -> TrainConfig:
    if wanted.data is None or wanted.size is None:
        missing = "--data NAME" if wanted.data is None else "--size HxW"
        raise UserError(f"--model {name} also needs {missing}, because no config says what it was trained on")
    data = {"name": wanted.data, "size": wanted.size, "normalize": wanted.normalize or "imagenet"}
    return _known({"student": {"name": name}, "data": data, "eval": dict(wanted.predictions)})


def _read(file: Path) -> TrainConfig:
    """The config in a file, whose plugins are then known."""
    config = parse(with_plugins(read_yaml(file), file.parent), str(file))
    add(config.used_plugins)
    return config


def _known(data: dict[str, Any]) -> TrainConfig:
    """The config that the options describe. Its plugins are then known."""
    config = parse(with_plugins(data, Path()), "the options")
    add(config.used_plugins)
    return config


def origin(path: Path) -> dict[str, str | float]:
    """A checkpoint's path and sha256 and, for one of this program, its run id, epoch and recorded `val/miou`.

    `val/fingerprint` is that of the images on which `val/miou` was measured, where the run recorded it. Of a checkpoint
    within an epoch, `epoch` and `val/miou` are left out.
    """
    known: dict[str, str | float] = {"checkpoint": str(path), "sha256": file_digest(path)}
    result = run_folder.read_result(path.parent)
    try:
        state = checkpoint.load(path)
    except UserError:  # a foreign format, which only `open_weights` reads
        return known
    data = state.get("data")
    if "history" in state and "run_id" in state:  # last.pt
        known["run_id"] = state["run_id"]
        state = checkpoint.metrics_of_weights(state)
    elif result is not None:
        known["run_id"] = result["run_id"]
    if result is not None and known["run_id"] == result["run_id"]:
        data = data or result.get("data")
    if isinstance(data, dict) and isinstance(data.get("val"), str):
        known["val/fingerprint"] = data["val"]
    return known | {name: state[name] for name in ("epoch", "val/miou") if isinstance(state.get(name), float)}
