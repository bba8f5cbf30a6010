"""Estimate the time and disk space of runs on this machine, from a few of their training steps on random images.

`python -m trainer.probe` reads JSON lines on stdin, one of settings and one per run, and answers in JSON lines: first
every run's disk space, then run by run the measured times, until the time limit. It is a process of its own because a
step that exceeds the memory may kill its process, and because the GPU is released when it ends.
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

from trainer.config import TrainConfig, UserError, message_of, parse
from trainer.data import PackedSplit, dataset_class, facts_of, open_dataset
from trainer.data.base import Official
from trainer.data.stream import HostBatch, Stream, holdout
from trainer.files import checkpoint
from trainer.measure.device import pick_device, synchronize
from trainer.place import Place
from trainer.plugins.load import add
from trainer.training.build import Data, build_distilled, build_teacher, reads_native_labels_of_train
from trainer.training.compiled import compiler_of
from trainer.training.evaluation.evaluate import evaluate
from trainer.training.learner import Learner
from trainer.training.numerics import set_up
from trainer.training.schedule import mean_steps
from trainer.training.step import accumulate, parts
from trainer.training.task import Distilled
from trainer.training.teacher import Teacher

STEPS_S = 0.5
"""Duration of the timed training steps, and of the timed validation, each."""
WARM_UP = {"cpu": 1, "cuda": 4}
"""Untimed steps before, in which memory is allocated and kernels are chosen."""
MOST_STEPS = 50
VAL_BATCH = 8
"""Images in one forward pass of `evaluate`."""
BLOCK = 16
"""Side in pixels of the one-class squares of a random label."""
ASSUMED_SIZE = (375, 500)
"""(H, W) assumed for images of data sets whose images differ in size: that of most VOC images."""


class FakeSplit(PackedSplit):
    """A split that holds one random image `count` times, at `size`, with a label at `native` size, both (H, W)."""

    def __init__(
        self, count: int, size: tuple[int, int], native: tuple[int, int], classes: int, channels: int = 3
    ) -> None:
        rng = np.random.default_rng(0)
        self.size = size
        self.channels = channels
        self.stems = [""] * count
        self.class_counts = np.ones(classes, np.int64)
        self._images = [rng.integers(0, 256, (*size, channels), dtype=np.uint8)] * count
        self._labels = [_squares(rng, size, classes)] * count
        self._natives = self._labels if native == size else [_squares(rng, native, classes)] * count


def _squares(rng: np.random.Generator, size: tuple[int, int], classes: int) -> np.ndarray:
    """(H, W) uint8."""
    coarse = rng.integers(0, classes, (-(-size[0] // BLOCK), -(-size[1] // BLOCK)), dtype=np.uint8)
    return coarse.repeat(BLOCK, 0).repeat(BLOCK, 1)[: size[0], : size[1]].copy()


def split_sizes(config: TrainConfig, root: Path | None) -> Official:
    """The numbers of training and validation pairs: of the folder `root`, or without one of the official splits.

    Raises UserError for an unknown data set, and for a folder that does not hold it.
    """
    if root is None:
        return dataset_class(config.data.name).expected_splits(**config.data.options)
    dataset = open_dataset(config.data, root, root)
    test = len(dataset.pairs("test")) if "test" in config.eval.splits else 0
    return Official(len(dataset.pairs("train")), len(dataset.pairs("val")), dataset.official.size, test=test)


def fake_data(config: TrainConfig, found: Official) -> Data:
    """A run's data with random images in place of its own."""
    dataset = facts_of(config.data)
    native = found.size or ASSUMED_SIZE
    shape = (config.data.size, native, len(dataset.classes), dataset.channels)
    train, val = (FakeSplit(n, *shape) for n in (found.train, found.val))
    return Data(dataset, train, val, *holdout(found.train, config.data.select))  # type: ignore[arg-type]  # its classes


def disk_bytes(config: TrainConfig, found: Official) -> dict[str, float]:
    """Disk space in bytes: `checkpoints` of a finished run (last.pt and best.pt), `packed` of its data set."""
    with torch.device("meta"):
        distilled = build_distilled(config, _teacher(config), fake_data(config, found))
    model, student = (sum(t.nbytes for t in m.state_dict().values()) for m in (distilled, distilled.student))
    trained = sum(p.nbytes for p in distilled.parameters() if p.requires_grad)
    moments = 2 if config.optim.optimiser == "adamw" else 1
    students = 1 if config.optim.ema_decay is None else 2
    height, width = config.data.size
    channels = facts_of(config.data).channels
    native = found.size or ASSUMED_SIZE
    label = 0 if native == config.data.size else native[0] * native[1]
    test = found.test * ("test" in config.eval.splits)
    labels = found.val + test + found.train * reads_native_labels_of_train(config)
    return {
        "checkpoints": model + moments * trained + students * student,
        "packed": (found.train + found.val + test) * (channels + 1) * height * width + labels * label,
    }


def measure_times(config: TrainConfig, place: Place, workers: int, found: Official) -> dict[str, float]:
    """Seconds: `epoch_s`, an epoch with its checkpoint and validations (averaged), and `once_s`, the rest of a run.

    One worker's share of a step is timed, without the communication between workers. Raises UserError.
    """
    started = time.perf_counter()
    share, micro = config.optim.shares(workers, place.micro_batch)
    steps = (found.train - len(holdout(found.train, config.data.select)[1])) // config.optim.global_batch
    images = found.val + len(holdout(found.train, config.data.select)[1])
    group = config.optim.effective_norm_batch
    group = share if share % group else group  # the part of a group that is split over workers
    optim = config.optim.model_copy(update={"global_batch": share, "norm_batch": group})
    config = config.model_copy(update={"optim": optim})
    device = pick_device(place.device)
    set_up(optim.precision, place.deterministic, device)
    compiler = compiler_of(place, device)
    data = fake_data(config, found)
    teacher, model = None, _teacher(config)
    distilled = build_distilled(config, model, data).to(device)
    if model is not None and config.teacher is not None:
        scales = (config.data.normalize, config.teacher.normalize)
        bf16 = config.teacher_precision == "bf16"
        teacher = Teacher(model.to(device), distilled.teacher_needs, bf16, *scales, compiler)
    learner = Learner(distilled, optim, config.terms, compiler)
    once_s = time.perf_counter() - started

    def step(host: HostBatch) -> None:
        for part in parts(host, teacher, device, config.data.normalize, micro, len(data.classes)):
            accumulate(learner, part, share)
        learner.update(optim.lr, 0)

    stream = Stream(data.train, config, data.learn, 0, 1)
    step_s = _timed(device, step, (host for epoch in count() for host in stream.epoch(epoch)))
    image_s = _timed(device, lambda chunk: _validate(distilled, data, config, chunk), _chunks(found.val)) / VAL_BATCH
    validation_s = -(-images // workers) * image_s
    test_s = -(-found.test // workers) * image_s if "test" in config.eval.splits else 0.0
    epochs = config.optim.epochs
    validations = epochs // config.eval.every + bool(epochs % config.eval.every)
    return {
        "epoch_s": mean_steps(optim, steps) * step_s
        + _checkpoint_s(learner, place.cache_dir) / place.checkpoint_every
        + validation_s * validations / epochs,
        "once_s": once_s + test_s + image_s * 12,  # footprint.py runs twelve passes of the student
    }


def _teacher(config: TrainConfig) -> Any:
    facts = facts_of(config.data)
    return build_teacher(config, None, len(facts.classes), facts.channels)


def _validate(distilled: Distilled, data: Data, config: TrainConfig, chunk: np.ndarray) -> None:
    how = config.eval
    evaluate(distilled.student, data.val, data.classes, config.data, how.protocols, indices=chunk, how=how)


def _chunks(images: int) -> Iterator[np.ndarray]:
    """Endless batches of VAL_BATCH indices; a smaller split repeats some."""
    while True:
        yield np.arange(VAL_BATCH) % images


def _timed(device: torch.device, action: Callable[[Any], None], items: Iterator[Any]) -> float:
    """Mean seconds of `action(item)`, including the wait for the next item."""
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
    """Seconds to write a checkpoint below `folder`, which should be on the same disk as the runs."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        started = time.perf_counter()
        state = {"model": learner.distilled.state_dict(), "optimiser": learner.optimiser.state_dict()}
        checkpoint.save(Path(temporary) / "last.pt", state)
        return time.perf_counter() - started


def _limit_memory() -> None:
    """Limit this process to the memory that is free now: larger allocations then fail instead of swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines() if sys.platform == "linux" else ():
        if line.startswith("MemAvailable:"):
            resource.setrlimit(resource.RLIMIT_DATA, (int(line.split()[1]) * 1024,) * 2)


def main() -> None:
    """Answer the requests on stdin. The first line: `limit_s` (or null), `workers` and `place` (Place's fields)."""
    settings, *requests = map(json.loads, sys.stdin)
    given: dict[str, Any] = {k: Path(v) if k.endswith("_dir") else v for k, v in settings["place"].items()}
    place = Place(**given)
    torch.set_num_threads(place.threads)
    runs = []
    for request in requests:
        config = parse(request["config"])
        add(config.used_plugins)
        fresh = config.model_copy(update={"student": config.student.model_copy(update={"init": "scratch"})})
        runs.append((request["id"], fresh, split_sizes(config, Path(request["root"]) if request["root"] else None)))
        _print_answer(request["id"], disk_bytes(fresh, runs[-1][2]))
    if place.device == "cpu":
        _limit_memory()
    elif not torch.cuda.is_available():
        return
    if settings["limit_s"]:
        # SIGALRM ends the process: Python could not check the time within a step of a large network
        signal.setitimer(signal.ITIMER_REAL, settings["limit_s"])
    for name, config, found in runs:
        try:
            _print_answer(name, measure_times(config, place, settings["workers"], found))
        except (MemoryError, RuntimeError) as error:  # torch raises either when memory is short
            _print_answer(name, {"error": message_of(error)[:200]})


def _print_answer(name: str, facts: dict[str, Any]) -> None:
    print(json.dumps({"id": name, **facts}), flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
