"""Student and teacher of a run with their initial weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainer.config import ModelConfig, TrainConfig, UserError
from trainer.files.checkpoint import finished_run
from trainer.files.file_digest import file_digest
from trainer.models import SegModel, build_model
from trainer.models.inputs import RGB
from trainer.place import Place
from trainer.rng import initialising
from trainer.weights import Weights, load_weights, open_weights


def build_student(config: TrainConfig, classes: int, channels: int = RGB) -> SegModel:
    """The student. Its initialisation depends on the seed only: all arms of a seed start from equal weights."""
    with initialising(config.seed, "student"):
        student = build_model(config.student, classes, channels)
    if config.student.init != "scratch":
        load_weights(student, Path(config.student.init), what="backbone", partial=config.student.partial)
    return student


def build_teacher(config: TrainConfig, place: Place | None, classes: int, channels: int = RGB) -> SegModel | None:
    """The frozen teacher, or None when no path needs it. Without `place` its weights are not loaded."""
    if config.teacher is None or not config.active:
        return None
    network = ModelConfig(name=config.teacher.name)
    with initialising(0, "teacher"):
        if place is None:
            teacher = build_model(network, classes, channels)
        else:
            teacher = load_network(network, _teacher_file(config, place), classes, channels)
    return teacher.eval().requires_grad_(False)


def load_network(config: ModelConfig, path: Path, classes: int, channels: int = RGB) -> SegModel:
    """A network with the weights of a file. Its head has as many outputs as the file's: the K classes, or K + void.

    Void is the last output; it takes part in the softmax but is never a label. Raises UserError when the file does not
    fit.
    """
    weights, outputs = _open_whole(config, path, classes, channels)
    network = build_model(config, outputs, channels)
    weights.load(network, "all")
    return network


def _open_whole(config: ModelConfig, path: Path, classes: int, channels: int) -> tuple[Weights, int]:
    """The weights in `path`, and the number of outputs of its head."""
    with torch.device("meta"):
        names = build_model(config, classes, channels)
    weights = open_weights(path, names)
    outputs = weights.outputs or classes
    if outputs not in (classes, classes + 1):
        raise UserError(
            f"{path} has {outputs} outputs, but the data has {classes} classes (a void class may be one more); "
            "take weights that were trained on these classes"
        )
    return weights, outputs


def check_weights(config: TrainConfig, classes: int, channels: int = RGB) -> None:
    """Raise UserError for weights that do not fit. Files missing on this machine are skipped; `run_id` needs them."""
    here = weights_here(config)
    init, checkpoint = _student_file(config), _teacher_checkpoint(config)
    if init is not None and init in here:
        with torch.device("meta"):
            student = build_model(config.student, classes, channels)
        open_weights(init, student).cover(student, "backbone", partial=config.student.partial)
    if config.teacher is not None and checkpoint is not None and checkpoint in here:
        network = ModelConfig(name=config.teacher.name)
        weights, outputs = _open_whole(network, checkpoint, classes, channels)
        with torch.device("meta"):
            teacher = build_model(network, outputs, channels)
        weights.cover(teacher, "all")


def weights_here(config: TrainConfig) -> list[Path]:
    """The files or folders of a run's weights that exist on this machine."""
    return [path for path in (_student_file(config), _teacher_checkpoint(config)) if path is not None and path.exists()]


def weights_used(
    config: TrainConfig, place: Place, student: SegModel, teacher: SegModel | None
) -> dict[str, dict[str, Any]]:
    """For result.json: the weight files of student and teacher, each with its sha256 and coverage, and the id of the
    run that trained the teacher, "" for weights from elsewhere."""
    used = {}
    path = _student_file(config)
    if path is not None:
        coverage = open_weights(path, student).cover(student, "backbone", partial=config.student.partial)
        used["student"] = {"file": str(path), "sha256": file_digest(path), **coverage.record(config.data.normalize)}
    if teacher is not None and config.teacher is not None:
        path = _teacher_file(config, place)
        coverage = open_weights(path, teacher).cover(teacher, "all")
        given = config.teacher.normalize or config.data.normalize
        origin = {"file": str(path), "sha256": file_digest(path), "run_id": finished_run(path)}
        used["teacher"] = {**origin, **coverage.record(given)}
    return used


def teacher_source(config: TrainConfig, place: Place) -> str | None:
    """What enters a run's id for the teacher that `place` gives: the id of the run that trained it, else the sha256 of
    the file. None where `place` gives none or no path uses it."""
    if place.teacher is None or config.teacher is None or not config.active:
        return None
    trained = finished_run(place.teacher) if config.teacher.train is not None else ""
    return trained or file_digest(place.teacher)


def _student_file(config: TrainConfig) -> Path | None:
    return None if config.student.init == "scratch" else Path(config.student.init)


def _teacher_checkpoint(config: TrainConfig) -> Path | None:
    if config.teacher is None or config.teacher.checkpoint is None or not config.active:
        return None
    return Path(config.teacher.checkpoint)


def _teacher_file(config: TrainConfig, place: Place) -> Path:
    assert config.teacher is not None
    path = place.teacher or config.teacher.checkpoint
    if path is None:
        raise UserError(
            f"teacher {config.teacher.name} has a recipe but no weights; `transkd run` trains it first, "
            "or give --teacher FILE"
        )
    return Path(path)
