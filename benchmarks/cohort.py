"""Runs that train side by side against single runs, interleaved in one process: students' images a second, its ceiling,
and the peak memory of a process for each.

Run: python benchmarks/cohort.py [--size H W] [--batch N] [--rounds N] [--teacher NAME] [--student NAME]
[--members K ...] [--device NAME]
With T the time of what runs share (the batch, the teacher's output) and S that of all that one run pays (student,
paths, losses, backward pass, optimiser), both measured in the same rounds, k runs cannot be faster than
k (T + S) / (T + k S) times one run. On a CPU times are CPU seconds of this process, which other processes that run at
the same time disturb less.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from ratios import record

from trainer.config import ModelConfig, TrainConfig, parse
from trainer.data.stream import HostBatch
from trainer.files import checkpoint
from trainer.measure.device import pick_device, synchronize
from trainer.models import build_model
from trainer.place import Place
from trainer.training.loop import Cohort
from trainer.training.member import Run
from trainer.training.step import Part, parts


def arguments() -> argparse.Namespace:
    """What is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[128, 256], help="height and width (default: 128 256)")
    parser.add_argument("--batch", type=int, default=2, help="images of a step")
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds; one more warms up")
    parser.add_argument("--teacher", default="segformer_b2")
    parser.add_argument("--student", default="segformer_b0")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4, 8], help="sizes of the cohorts")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--memory-of", type=int, help="only print the peak memory in MiB of a process with so many runs"
    )
    return parser.parse_args()


def config(asked: argparse.Namespace, weights: Path, position: int) -> TrainConfig:
    """The run at a position of its cohort: CSF and PEA at a learning rate of its own."""
    data = {"train": 2 * asked.batch, "val": 2, "size": asked.size}
    return parse(
        {
            "data": {"name": "scenes", "size": asked.size, "options": data},
            "student": {"name": asked.student},
            "teacher": {"name": asked.teacher, "checkpoint": str(weights)},
            "distill": {"csf": {}, "pea": {}},
            "optim": {"lr": 1e-4 * (1 + position), "global_batch": asked.batch, "epochs": 1000},
        }
    )


def cohort(asked: argparse.Namespace, folder: Path, size: int) -> Cohort:
    """So many runs, ready to train."""
    weights = folder / "teacher.pt"
    if not weights.exists():
        checkpoint.save(weights, {"model": build_model(ModelConfig(name=asked.teacher), 19).state_dict()})
    runs = [
        Run(
            config(asked, weights, position),
            Place(out_dir=folder / f"{size}" / f"{position}", cache_dir=folder / "cache", device=asked.device),
            lambda metrics, path: None,
        )
        for position in range(size)
    ]
    found = Cohort(runs)
    found.set_up()
    for member in found.members:
        member.begin_epoch()
    return found


def seconds(device: torch.device, action: Callable[[], object]) -> float:
    """Seconds of an action, to the end of what it launched."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    synchronize(device)
    started = clock()
    action()
    synchronize(device)
    return clock() - started


def measure(asked: argparse.Namespace, folder: Path) -> None:
    """Time single runs and cohorts in turn, and print the table."""
    one, *larger = (cohort(asked, folder, size) for size in sorted({1, *asked.members}))
    shared, member, device = one.shared, one.members[0], one.shared.device
    host: HostBatch = next(shared.stream.epoch(0))
    teacher = shared.teacher_of([member.distilled])

    def make() -> list[Part]:
        return list(parts(host, teacher, device, member.config.data.normalize, member.micro, 19))

    def pay(made: list[Part]) -> None:
        for part in made:
            member.take(part)
        member.update(0)

    def step(of: Cohort) -> None:
        of.train_step(0, host, of.members)

    times: dict[int | str, list[float]] = {"T": [], "S": [], 1: [], **{len(each.members): [] for each in larger}}
    for turn in range(asked.rounds + 1):
        made = make()
        found = {"T": seconds(device, make), "S": seconds(device, lambda made=made: pay(made))}
        for each in larger:
            found[1] = found.get(1, 0.0) + seconds(device, lambda: step(one))  # before each cohort
            found[len(each.members)] = seconds(device, lambda each=each: step(each))
        if turn:
            for name, value in found.items():
                times[name].append(value / len(larger) if name == 1 else value)
    report(asked, device, {name: statistics.median(values) for name, values in times.items()})


def report(asked: argparse.Namespace, device: torch.device, median: dict[int | str, float]) -> None:
    """Print the medians."""
    shared, own, single = median.pop("T"), median.pop("S"), median[1]
    height, width = asked.size
    print(
        f"CSF and PEA, {asked.teacher} -> {asked.student}, batch {asked.batch}, {height}x{width}, {device}, "
        f"{torch.get_num_threads()} threads, medians of {asked.rounds} rounds: shared {shared * 1e3:.1f} ms, "
        f"a run's own {own * 1e3:.1f} ms, single step {single * 1e3:.1f} ms"
    )
    print("runs   images/s   over single   ceiling   of ceiling   peak memory (MiB)")
    for size, step_s in median.items():
        assert isinstance(size, int)
        gain = size * single / step_s
        ceiling = size * (shared + own) / (shared + size * own)
        again = [sys.executable, *sys.argv, "--memory-of", str(size)]
        memory = float(subprocess.run(again, check=True, capture_output=True, text=True).stdout)
        print(
            f"{size:4} {size * asked.batch / step_s:10.1f} {gain:13.3f} {ceiling:9.3f} {gain / ceiling:12.3f} "
            f"{memory:12.0f}"
        )
        if size > 1:
            what = (
                f"{size} runs side by side, {asked.teacher} -> {asked.student}, {height}x{width}, batch {asked.batch}"
            )
            record(f"{what}: over single runs", gain)
            record(f"{what}: over its ceiling", gain / ceiling, 0.95 if device.type == "cpu" else 1.0)


def peak_mib(asked: argparse.Namespace, folder: Path) -> float:
    """Of this process after three steps: on CUDA of the allocator, else of its resident memory."""
    found = cohort(asked, folder, asked.memory_of)
    host = next(found.shared.stream.epoch(0))
    for step in range(3):
        found.train_step(step, host, found.members)
    if found.shared.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # ru_maxrss would begin with the parent's peak
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


def main() -> None:
    """Measure and print."""
    asked = arguments()
    torch.set_num_threads(1 if pick_device(asked.device).type == "cuda" else torch.get_num_threads())
    with tempfile.TemporaryDirectory() as temporary:
        if asked.memory_of:
            print(peak_mib(asked, Path(temporary)))
        else:
            measure(asked, Path(temporary))


if __name__ == "__main__":
    main()
