"""The model card beside an exported student: what it takes, what it was trained on and how, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from trainer.config import printable
from trainer.deploy.open import Student
from trainer.deploy.parity import Parity
from trainer.files import run_folder
from trainer.files.file_digest import file_digest
from trainer.measure.complexity import parameters


class Exported(NamedTuple):
    """One file of a student, and what was measured on it."""

    path: Path
    parity: Parity
    latency_ms: float
    miou: float | None = None
    """On val, in percent; None where it was not measured."""


def card(student: Student, files: Sequence[Exported], takes: str, beside: str) -> str:
    """The card in Markdown, with the metadata that model hubs read. `takes`: the images of the graph; `beside`: what
    the predictions of its run do around one pass over an image, "" for nothing."""
    config, data = student.config, student.dataset
    hub = {
        "library_name": "onnx",
        "pipeline_tag": "image-segmentation",
        "datasets": [config.data.name],
        "metrics": ["mean_iou"],
    }
    parts = [
        f"---\n{yaml.safe_dump(hub, sort_keys=False)}---",
        f"# {config.student.name} on {config.data.name}",
        f"A network for semantic segmentation into {len(data.classes)} classes, "
        f"{parameters(student.model) / 1e6:.2f} M parameters. The modules that distilled it are not part of it.",
        "## Files",
        _table(
            ("file", "MB", "same class as torch (%)", "val mIoU", "ms an image", "sha256"),
            [
                (
                    each.path.name,
                    f"{each.path.stat().st_size / 1e6:.1f}",
                    f"{100 * each.parity.agreement:.3f}",
                    "" if each.miou is None else f"{each.miou:.2f}",
                    f"{each.latency_ms:.1f}",
                    file_digest(each.path),
                )
                for each in files
            ],
        ),
        f"Takes {takes}; normalisation is part of the graph. Gives a logit for each of "
        f"{student.model.channels.classes} outputs; the class of a pixel is the largest of the first "
        f"{len(data.classes)}." + (f" The run predicts by {beside}: repeat that around the graph." if beside else ""),
        "## Classes",
        _table(
            ("output", "class", "colour (RGB)", "IoU on val"),
            [
                (str(index), name, " ".join(map(str, colour)), _iou(student, name))
                for index, (name, colour) in enumerate(zip(data.classes, data.palette, strict=True))
            ],
        ),
        "## Training",
        _table(("setting", "value"), _recipe(student)),
        "## Provenance",
        _table(("of", "is"), _provenance(student)),
        "## Limits",
        f"Measured on the val split of {config.data.name} alone, at {_by(config.data.size)}: other cameras, places and "
        "weather are not part of it.",
    ]
    return "\n\n".join(parts) + "\n"


def _recipe(student: Student) -> list[tuple[str, str]]:
    config = student.config
    if run_result(student) is None:
        return [("run", "unknown: the weights come without one")]
    length = f"{config.optim.epochs} epochs" if config.optim.iterations is None else f"{config.optim.iterations} steps"
    paths = ", ".join(f"{name} x {path.weight:g}" for name, path in config.distill.items())
    return [
        ("teacher", config.teacher.name if config.teacher and paths else "none"),
        ("knowledge paths", paths or "none"),
        ("losses", ", ".join(f"{name} x {loss.weight:g}" for name, loss in config.loss.items())),
        ("length", f"{length}, {config.optim.global_batch} images a step"),
        ("optimiser", f"{config.optim.optimiser}, learning rate {config.optim.lr:g}, {config.optim.precision}"),
        ("initial weights", str(config.student.init)),
        ("augmentation", str(config.data.augment)),
        ("seed", str(config.seed)),
    ]


def _provenance(student: Student) -> list[tuple[str, str]]:
    result = run_result(student) or {}
    shown = {"checkpoint": Path(str(student.origin["checkpoint"])).name, "sha256": str(student.origin["sha256"])}
    if "run_id" in student.origin:
        shown["run"] = str(student.origin["run_id"])
    if "epoch" in student.origin:
        shown["epoch"] = f"{student.origin['epoch']:.0f}"
    if "val/miou" in student.origin:
        shown["val mIoU of the run"] = f"{student.origin['val/miou']:.2f}"
    known = list(shown.items())
    known += [(f"{split} data", fingerprint) for split, fingerprint in result.get("data", {}).items()]
    environment: Mapping[str, Any] = result.get("environment", {})
    return known + [(name, str(environment[name])) for name in ("numerics", "torch", "timm") if name in environment]


def _iou(student: Student, name: str) -> str:
    """The IoU of the checkpoint's epoch, where its run recorded it."""
    last = (run_result(student) or {}).get("last", {})
    value = last.get(f"val/iou/{name}") if last.get("epoch") == student.origin.get("epoch") else None
    return "" if value is None else f"{value:.2f}"


def run_result(student: Student) -> dict[str, Any] | None:
    """The result of the run that trained a student; None for other weights."""
    result = run_folder.read_result(Path(str(student.origin["checkpoint"])).parent)
    return result if result is not None and result.get("run_id") == student.origin.get("run_id") else None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(printable(str(cell)).replace("|", "\\|") for cell in row) + " |" for row in cells
    )


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
