"""Images a second of the data: packing, packed against raw, and the stream beside a training step.

Random scenes are written as PNG in Cityscapes' layout. Run: python benchmarks/data.py [HEIGHT WIDTH [IMAGES]]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from ratios import record

from trainer import rng
from trainer.config import ModelConfig, TrainConfig, parse
from trainer.data import SegDataset, open_dataset, pack
from trainer.data.packs.packing import resize_image, resize_label
from trainer.data.scenes import write_scenes
from trainer.data.stream import Stream, to_batch
from trainer.data.transforms import augment
from trainer.models import build_model
from trainer.models.norm import set_norm_batch
from trainer.training.learner import Learner
from trainer.training.task import Distilled, count_pixels

BATCH = 4
ROUNDS = 3


def from_files(dataset: SegDataset, config: TrainConfig) -> Iterator[np.ndarray]:
    """Every image of train, decoded, resized and augmented in one thread, as a loader without a pack does."""
    kind = config.data.augment
    assert isinstance(kind, str), "steps are applied to packed samples"
    for index, pair in enumerate(dataset.pairs("train")):
        image, label = dataset.read(pair)
        image, label = resize_image(image, config.data.size), resize_label(label, config.data.size)
        draw = rng.generator(config.seed, "augment", 0, index)
        yield augment(image, label, draw, kind, False)[0].transpose(2, 0, 1).copy()


def step_of(config: TrainConfig, device: torch.device) -> Callable[[object], None]:
    """A training step of SegFormer-B0 alone: the fastest step that a run of it can have."""
    distilled = Distilled(build_model(ModelConfig(name="segformer_b0"), 19), {}, 19).to(device)
    set_norm_batch(distilled, BATCH)
    learner = Learner(distilled, config.optim, {})

    def run(host: object) -> None:
        batch = to_batch(host, device, "imagenet")  # type: ignore[arg-type]  # a HostBatch
        learner.accumulate(batch, None, count_pixels(batch.label, 19).sum(), BATCH, last=True)
        learner.update(1e-4, 0)

    return run


def rate(images: int, work: Callable[[], object]) -> float:
    """Images a second, the median of a few rounds."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return images / statistics.median(seconds)


def main() -> None:
    """Measure and print."""
    given = [int(text) for text in sys.argv[1:]]
    height, width, images = given + [512, 1024, 32][len(given) :]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = parse(
        {
            "data": {"name": "cityscapes", "size": [height, width]},
            "optim": {"global_batch": BATCH, "norm_batch": BATCH},
            "student": {"name": "segformer_b0"},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_scenes(root / "city", train=images, val=1, seed=0, size=(2 * height, 2 * width))
        dataset = open_dataset(config.data, root / "city", root)
        started = time.perf_counter()
        packed = pack(dataset, config.data, "train", root, native=False)
        packing = images / (time.perf_counter() - started)
        raw = rate(images, lambda: list(from_files(dataset, config)))
        print(
            f"{images} images of {2 * height}x{2 * width} at {height}x{width}, {device}, batch {BATCH}; images a second"
        )
        print(f"{'decoded from files, 1 thread':34} {raw:8.1f}   1.00 x")
        print(f"{'packing them, once':34} {packing:8.1f}   {packing / raw:.2f} x")
        for threads in (1, 2, 4):
            stream = Stream(packed, config, None, 0, 1, threads=threads, pinned=device.type == "cuda")
            found = rate(images, lambda stream=stream: list(stream.epoch(0)))  # type: ignore[misc]
            print(f"{f'packed, stream of {threads}':34} {found:8.1f}   {found / raw:.2f} x")
            if threads == 1:
                record(
                    f"data, {height}x{width} of {2 * height}x{2 * width}: packed over decoded, one thread", found / raw
                )
        step = step_of(config, device)
        held = next(Stream(packed, config, None, 0, 1).epoch(0))
        count = min(images, 8) // BATCH
        alone = rate(count * BATCH, lambda: [step(held) for _ in range(count)])
        print(f"{'a step on one batch':34} {alone:8.1f}")
        for threads in (1, 2):
            stream = Stream(packed, config, None, 0, 1, threads=threads, pinned=device.type == "cuda")

            def fed(stream: Stream = stream) -> None:
                for _, host in zip(range(count), stream.epoch(0), strict=False):
                    step(host)

            beside = rate(count * BATCH, fed)
            print(f"{f'a step on a stream of {threads}':34} {beside:8.1f}   {beside / alone:.2f} of that alone")
            if threads == 1:
                record(
                    f"data, {height}x{width}, {device}: a step fed by its stream over the step alone", beside / alone
                )


if __name__ == "__main__":
    main()
