"""Probe: how long a run's epochs take on this machine, and what it keeps, from a few of its steps on made-up pictures.

A program of its own, for a step that does not fit the memory may end its process, and the GPU is let go with it:
`python -m trainer.probe` reads a JSON line of settings and one for each run, and answers in JSON lines: what each run
keeps, then, one after another, what each takes. Runs that the time did not suffice for have no second line.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.config import TrainConfig, UserError, parse
from trainer.data import PackedSplit, dataset_class, open_dataset
from trainer.data.base import Official
from trainer.data.stream import HostBatch, Stream, holdout
from trainer.files import checkpoint
from trainer.measure.device import pick_device, synchronize
from trainer.place import Place
from trainer.training.build import Data, build_distilled, build_teacher
from trainer.training.evaluate import evaluate
from trainer.training.learner import Learner
from trainer.training.loop import train_step
from trainer.training.task import Distilled
from trainer.training.teacher import Teacher

STEPS_S = 0.5
"""Seconds of steps that are timed, and of validation."""
WARM_UP = {"cpu": 1, "cuda": 4}
"""Steps before those: allocators and kernels settle."""
MOST_STEPS = 50
VAL_BATCH = 8
"""Images that `evaluate` takes at once."""
BLOCK = 16
"""Side, in pixels, of the squares of one class in a made-up label: noise would be no work for an augmentation."""
ASSUMED_SIZE = (375, 500)
"""(H, W) of pictures where a data set's differ: what most of VOC's are."""


class FakeSplit(PackedSplit):
    """A split of `count` samples that are all the same made-up picture, at `size` and with a label at `native` size."""

    def __init__(self, count: int, size: tuple[int, int], native: tuple[int, int], classes: int) -> None:
        rng = np.random.default_rng(0)
        self.size = size
        self.stems = [""] * count
        self.class_counts = np.ones(classes, np.int64)
        self._images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8)] * count
        self._labels = [_squares(rng, size, classes)] * count
        self._natives = self._labels if native == size else [_squares(rng, native, classes)] * count


def _squares(rng: np.random.Generator, size: tuple[int, int], classes: int) -> np.ndarray:
    """(H, W) uint8."""
    coarse = rng.integers(0, classes, (-(-size[0] // BLOCK), -(-size[1] // BLOCK)), dtype=np.uint8)
    return coarse.repeat(BLOCK, 0).repeat(BLOCK, 1)[: size[0], : size[1]].copy()


def split_sizes(config: TrainConfig, root: Path | None) -> Official:
    """How many pairs a run trains on and validates on: those in the folder, else those its data set is known to have.

    Raises UserError for what is no data set, and for a folder that is not one.
    """
    known = dataset_class(config.data.name).expected_splits(**config.data.options)
    if root is None:
        return known
    dataset = open_dataset(config.data, root, root)
    return Official(len(dataset.pairs("train")), len(dataset.pairs("val")), known.size)


def fake_data(config: TrainConfig, found: Official) -> Data:
    """The data of a run with every picture made up."""
    dataset = dataset_class(config.data.name)
    native = found.size or ASSUMED_SIZE
    train, val = (FakeSplit(n, config.data.size, native, len(dataset.classes)) for n in (found.train, found.val))
    return Data(dataset, train, val, *holdout(found.train, config.data.select))  # type: ignore[arg-type]  # its classes


def disk_bytes(config: TrainConfig, found: Official) -> dict[str, float]:
    """Bytes: `checkpoints`, what a run leaves (the last whole, the best student), and `packed`, its data set."""
    with torch.device("meta"):
        distilled = build_distilled(config, _teacher(config), fake_data(config, found))
    model, student = (sum(t.nbytes for t in m.state_dict().values()) for m in (distilled, distilled.student))
    trained = sum(p.nbytes for p in distilled.parameters() if p.requires_grad)
    height, width = config.data.size
    native = found.size or ASSUMED_SIZE
    label = 0 if native == config.data.size else native[0] * native[1]
    return {
        "checkpoints": model + 2 * trained + student,  # AdamW keeps two moments of what is trained
        "packed": (found.train + found.val) * (4 * height * width + label),
    }


def measure_times(config: TrainConfig, place: Place, workers: int, found: Official) -> dict[str, float]:
    """Seconds: `epoch_s`, an epoch with its checkpoint and its share of the validations, and `once_s`, the rest of a
    run. A worker's share of a step is timed; what workers of a run wait for each other is not. Raises UserError."""
    started = time.perf_counter()
    share, micro = config.optim.shares(workers, place.micro_batch)
    steps = (found.train - len(holdout(found.train, config.data.select)[1])) // config.optim.global_batch
    images = found.val + len(holdout(found.train, config.data.select)[1])
    optim = config.optim.model_copy(update={"global_batch": share, "norm_batch": config.optim.effective_norm_batch})
    config = config.model_copy(update={"optim": optim})
    device = pick_device(place.device)
    data = fake_data(config, found)
    teacher, model = None, _teacher(config)
    distilled = build_distilled(config, model, data).to(device)
    if model is not None and config.teacher is not None:
        scales = (config.data.normalize, config.teacher.normalize)
        teacher = Teacher(model.to(device), distilled.teacher_needs, optim.precision == "bf16", *scales)
    learner = Learner(distilled, optim, config.distill)
    once_s = time.perf_counter() - started

    def step(host: HostBatch) -> None:
        train_step(learner, teacher, host, config, micro, len(data.classes))
        learner.update(optim.lr, 0)

    stream = Stream(data.train, config, data.learn, 0, 1)
    step_s = _timed(device, step, (host for epoch in count() for host in stream.epoch(epoch)))
    image_s = _timed(device, lambda chunk: _validate(distilled, data, config, chunk), _chunks(found.val)) / VAL_BATCH
    validation_s = -(-images // workers) * image_s
    epochs = config.optim.epochs
    validations = epochs // config.eval.every + bool(epochs % config.eval.every)
    return {
        "epoch_s": steps * step_s + _checkpoint_s(learner, place.cache_dir) + validation_s * validations / epochs,
        "once_s": once_s + image_s * 12,  # twelve passes measure the deployed student (footprint.py)
    }


def _teacher(config: TrainConfig) -> Any:
    return build_teacher(config, None, len(dataset_class(config.data.name).classes))


def _validate(distilled: Distilled, data: Data, config: TrainConfig, chunk: np.ndarray) -> None:
    evaluate(distilled.student, data.val, data.classes, config.data, config.eval.protocols, indices=chunk)


def _chunks(images: int) -> Iterator[np.ndarray]:
    """Always as many as `evaluate` takes at once: of a smaller split some are taken twice."""
    while True:
        yield np.arange(VAL_BATCH) % images


def _timed(device: torch.device, action: Callable[[Any], None], items: Iterator[Any]) -> float:
    """Mean seconds of `action(item)`, its item's making included as far as it is waited for."""
    for _ in range(WARM_UP[device.type]):
        action(next(items))
    synchronize(device)
    started, done, seconds = time.perf_counter(), 0, 0.0
    while not done or (seconds < STEPS_S and done < MOST_STEPS):
        action(next(items))
        synchronize(device)
        done += 1
        seconds = time.perf_counter() - started
    return seconds / done


def _checkpoint_s(learner: Learner, folder: Path) -> float:
    """Seconds of a checkpoint, on the disk where the runs' own will lie."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        started = time.perf_counter()
        state = {"model": learner.distilled.state_dict(), "optimiser": learner.optimiser.state_dict()}
        checkpoint.save(Path(place) / "last.pt", state)
        return time.perf_counter() - started


def _limit_memory() -> None:
    """Have an allocation beyond what is free now fail, instead of driving this machine into its swap."""
    for line in Path("/proc/meminfo").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("MemAvailable:"):
            resource.setrlimit(resource.RLIMIT_DATA, (int(line.split()[1]) * 1024,) * 2)


def main() -> None:
    """Answer the requests on stdin. The first line: `limit_s` (null: none), `workers`, and `place`, Place's fields."""
    settings, *requests = map(json.loads, sys.stdin)
    given: dict[str, Any] = {k: Path(v) if k.endswith("_dir") else v for k, v in settings["place"].items()}
    place = Place(**given)
    torch.set_num_threads(place.threads)
    runs = []
    for request in requests:
        config = parse(request["config"])
        fresh = config.model_copy(update={"student": config.student.model_copy(update={"init": "scratch"})})
        runs.append((request["id"], fresh, split_sizes(config, Path(request["root"]) if request["root"] else None)))
        _print_answer(request["id"], disk_bytes(fresh, runs[-1][2]))
    if place.device == "cpu":
        _limit_memory()
    elif not torch.cuda.is_available():
        return
    if settings["limit_s"]:
        # by the kernel: a step of a large network returns to Python too late, and the process may end anywhere
        signal.setitimer(signal.ITIMER_REAL, settings["limit_s"])
    for name, config, found in runs:
        try:
            _print_answer(name, measure_times(config, place, settings["workers"], found))
        except (MemoryError, RuntimeError) as error:  # what torch raises where memory is short
            _print_answer(name, {"error": " ".join(str(error).split())[:200]})


def _print_answer(name: str, facts: dict[str, Any]) -> None:
    print(json.dumps({"id": name, **facts}), flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
