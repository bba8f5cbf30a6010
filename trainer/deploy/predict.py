"""Write predictions as files: for each image of a folder a colour mask, an overlay and a PNG of class ids.

Reading, predicting and writing overlap; at most three batches are in memory, whatever the size of the folder.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from trainer.config import UserError, plain_scale
from trainer.config.input_files import check_regular, holds, refuse_undecodable
from trainer.data.arrays import as_rgb
from trainer.data.cityscapes import LABEL_IDS
from trainer.data.packs.packing import resize_image
from trainer.data.pairing import is_hidden
from trainer.deploy.open import Student
from trainer.files.atomic import replacing
from trainer.files.run_folder import write_text
from trainer.training.evaluation.inference import logits_of
from trainer.training.evaluation.panel import colour
from trainer.training.evaluation.prediction import class_of

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".npy"})
MANIFEST = "predict.json"
OPACITY = 0.5
"""Weight of the mask in an overlay; the image has the rest."""

Kind = Literal["masks", "overlays", "train_ids", "label_ids"]


class Job(NamedTuple):
    """One image, and the output file of each kind."""

    image: Path
    files: dict[Kind, Path]


class LoadedImage(NamedTuple):
    """An image at its own size and at the network's input size, both (H, W, C); or the error that it cannot be read."""

    job: Job
    native: np.ndarray | None
    resized: np.ndarray | None
    error: str | None


def find_images(images: Path) -> list[Path]:
    """The image itself, or all images below a folder, except folders of predictions and what is in them.

    Raises UserError if there are none.
    """
    check_regular(images)
    if images.is_file():
        return [images]
    if not images.is_dir():
        raise UserError(f"no such image or folder: {images}")
    predictions = {manifest.parent for manifest in images.rglob(MANIFEST)}
    if any((above / MANIFEST).exists() for above in images.resolve().parents):
        predictions.add(images)
    found = sorted(
        path
        for path in images.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not is_hidden(path.relative_to(images))
        and predictions.isdisjoint(path.parents)
        and path.is_file()
    )
    if not found:
        but = f" except predictions (folders with {MANIFEST})" if predictions else ""
        raise UserError(f"no images below {images}{but}; expected files ending in {', '.join(sorted(SUFFIXES))}")
    for path in found:
        refuse_undecodable(path)
    return found


def plan(images: Path, found: list[Path], out: Path, kinds: tuple[Kind, ...]) -> list[Job]:
    """One job per image, which writes `out/KIND/FOLDER/STEM.png`.

    Raises UserError for two images with the same output, and when `out` holds the images or an output is one of them.
    """
    base = images if images.is_dir() else images.parent
    if holds(out, base):
        raise UserError(f"--out {out} holds the images of {images}; choose a folder that is new or empty")
    read = {_identity(path) for path in found if path.exists()}
    taken: dict[Path, Path] = {}
    for path in found:
        name = path.relative_to(base).with_suffix(".png")
        if name in taken:
            raise UserError(f"{taken[name]} and {path} would both be written as {name}; rename one of them")
        taken[name] = path
    jobs = [Job(path, {kind: out / kind / name for kind in kinds}) for name, path in taken.items()]
    for job in jobs:
        for path in job.files.values():
            if path.exists() and _identity(path) in read:
                raise UserError(f"{path} would be written, and is one of the images of {images}; choose another --out")
    return jobs


def _identity(path: Path) -> tuple[int, int]:
    """Device and inode: equal for all names of a file."""
    found = path.stat()
    return found.st_dev, found.st_ino


def mark_folder(out: Path, student: Student) -> None:
    """Write predict.json, which marks `out` as predictions of this student.

    Raises UserError when `out` holds anything else, another student's predictions, or a damaged predict.json.
    """
    told = {
        "sha256": student.origin["sha256"],
        "data": student.config.data.name,
        "size": list(student.config.data.size),
        "normalize": plain_scale(student.config.data.normalize),
    }
    told |= {"inference": how} if (how := student.config.eval.predictions) else {}
    path = out / MANIFEST
    if path.exists():
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise UserError(f"{path} is damaged; choose another folder") from None
        if found != told:
            differs = [name for name in {**told, **found} if found.get(name) != told.get(name)]
            words = ["of another checkpoint" if name == "sha256" else f"with another {name}" for name in differs]
            raise UserError(f"{out} holds predictions {' and '.join(words)}; choose another folder")
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds other files; choose a folder that is new or empty")
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(told, indent=1) + "\n")


def unfinished(jobs: list[Job]) -> list[Job]:
    """The jobs with an output that is missing or older than its image."""

    def done(job: Job) -> bool:
        made = job.image.stat().st_mtime_ns
        return all(path.exists() and path.stat().st_mtime_ns >= made for path in job.files.values())

    return [job for job in jobs if not done(job)]


def predict(student: Student, jobs: list[Job], batch: int) -> Iterator[tuple[Job, str | None]]:
    """Run the jobs; yields each when its files are written, with an error message if its image cannot be read."""
    size = student.config.data.size
    chunks = [jobs[start : start + batch] for start in range(0, len(jobs), batch)]
    with ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 1))) as pool:

        def start(chunk: list[Job]) -> list[Future[LoadedImage]]:
            return [pool.submit(_read, student.dataset.read, job, size) for job in chunk]

        ahead = start(chunks[0]) if chunks else []
        behind: list[tuple[Job, Future[None]]] = []
        for number in range(len(chunks)):
            seen = [future.result() for future in ahead]
            ahead = start(chunks[number + 1]) if number + 1 < len(chunks) else []
            labels = _label(student, [one for one in seen if one.error is None])
            for job, written in behind:
                written.result()
                yield job, None
            behind = [(one.job, pool.submit(_write, student, one, label)) for one, label in labels]
            yield from ((one.job, one.error) for one in seen if one.error is not None)
        for job, written in behind:
            written.result()
            yield job, None


def _label(student: Student, seen: list[LoadedImage]) -> list[tuple[LoadedImage, np.ndarray]]:
    """Each image with its class indices (H, W) uint8 at its own size."""
    native = [one.native for one in seen if one.native is not None]
    resized = [one.resized for one in seen if one.resized is not None]
    return list(zip(seen, label_images(student, native, resized), strict=True))


@torch.no_grad()
def label_images(student: Student, native: list[np.ndarray], resized: list[np.ndarray]) -> list[np.ndarray]:
    """Class indices (H, W) uint8 of each image at its own size: the argmax of the upsampled logits.

    `resized` holds the same images (h, w, C) at the network's input size, resized as in training; logits are upsampled
    as in protocol `full`. Void, an output beyond the K classes, is left out, so every pixel gets a class.
    """
    if not native:
        return []
    config = student.config
    views = logits_of(student.model, np.stack(resized), config.data, student.device, student.autocast, config.eval)
    labels = []
    for image, *scores in zip(native, *views, strict=True):
        known = [logits[None, : len(student.dataset.classes)] for logits in scores]
        labels.append(class_of(known, image.shape[:2])[0].to(torch.uint8).cpu().numpy())
    return labels


def _read(reader: Callable[[Path], np.ndarray], job: Job, size: tuple[int, int]) -> LoadedImage:
    try:
        native = reader(job.image)
    except UserError as error:
        return LoadedImage(job, None, None, str(error))
    return LoadedImage(job, native, resize_image(native, size), None)


def _write(student: Student, seen: LoadedImage, label: np.ndarray) -> None:
    for kind, path in seen.job.files.items():
        assert seen.native is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = io.BytesIO()
        Image.fromarray(picture(kind, student, seen.native, label)).save(encoded, "PNG", compress_level=1)
        with replacing(path) as temporary:
            temporary.write_bytes(encoded.getvalue())


def picture(kind: Kind, student: Student, image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The content of a file of this kind: (H, W, 3) RGB or (H, W) ids, uint8."""
    if kind == "train_ids":
        return label
    if kind == "label_ids":
        return label_ids(student.dataset.classes)[label]
    mask = colour(label, student.dataset.palette)
    if kind == "masks":
        return mask
    return np.rint(as_rgb(image) * (1 - OPACITY) + mask * OPACITY).astype(np.uint8)


def label_ids(classes: tuple[str, ...]) -> np.ndarray:
    """(K,) uint8: the label id of each train id. Raises UserError for classes other than those of Cityscapes."""
    if not set(classes) <= LABEL_IDS.keys():
        raise UserError("--ids label: only the classes of Cityscapes have label ids; use --ids train")
    return np.array([LABEL_IDS[name] for name in classes], dtype=np.uint8)
