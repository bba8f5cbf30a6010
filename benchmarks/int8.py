"""What INT8 costs the students of a finished study: mIoU on val, agreement with torch, size and latency.

Run: python benchmarks/int8.py STORE STUDY --data-root FOLDER [--seeds 3] [--write]. Each student is exported as
`python -m trainer export --int8` does; --write replaces the section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from bench import HERE, hardware, write

from orchestrator.store.ledger import Ledger
from trainer.data import open_dataset
from trainer.deploy.int8 import export_int8, packed_splits
from trainer.deploy.model_card import Exported
from trainer.deploy.onnx import write_onnx
from trainer.deploy.open import Wanted, open_student
from trainer.deploy.parity import compare, in_torch, latency_ms, open_session
from trainer.files import run_folder
from trainer.place import default_cache

IMAGES = 16
"""Images of val that files and torch are compared on."""
HEADING = "## Students in INT8 (`python benchmarks/int8.py STORE STUDY --data-root FOLDER`)"


class Cost(NamedTuple):
    """Of one student: mIoU in percent, agreement with torch in percent of pixels, megabytes, milliseconds an image."""

    whole: float
    small: float
    agreement: float
    megabytes: tuple[float, float]
    latency_ms: tuple[float, float]


def cost_of(checkpoint: Path, data_root: Path | None) -> Cost:
    """Export a student in float32 and INT8, and measure both files."""
    student = open_student(checkpoint, Wanted(), "cpu")
    dataset = open_dataset(student.config.data, data_root, default_cache())
    splits = packed_splits(student, dataset, default_cache(), print)
    chosen = np.unique(np.linspace(0, len(splits[1]) - 1, IMAGES).round().astype(int))
    pictures = [splits[1].images([index]) for index in chosen]
    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder) / "student.onnx", Path(folder) / "int8.onnx"
        reference = in_torch(write_onnx(whole, student, opset=20, full_size=False, dynamic=False))
        session = open_session(whole, 1)
        parity = compare((reference(picture), session(picture)) for picture in pictures)
        exported = Exported(whole, parity, latency_ms(session, pictures[0]))
        found = export_int8(exported, small, student, splits, pictures, reference, 1)
        sizes = (whole.stat().st_size / 1e6, small.stat().st_size / 1e6)
    assert found.whole.miou is not None and found.small.miou is not None
    agreement = 100 * found.small.parity.agreement
    latencies = (found.whole.latency_ms, found.small.latency_ms)
    return Cost(found.whole.miou, found.small.miou, agreement, sizes, latencies)


def row(arm: str, costs: list[Cost]) -> str:
    """A line of the table: means over the students of an arm."""
    apart = [cost.small - cost.whole for cost in costs]
    deviation = f" ± {statistics.stdev(apart):.2f}" if len(apart) > 1 else ""
    means = [statistics.mean(values) for values in zip(*[(c.whole, c.small, c.agreement) for c in costs], strict=True)]
    difference = f"{statistics.mean(apart):+.2f}{deviation}"
    return f"{arm:<22} {len(costs):>8}  {means[0]:>9.2f}  {means[1]:>9.2f}  {difference:>16}  {means[2]:>8.2f} %"


def main() -> None:
    """Measure and print; see above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("study")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="of each arm, the first ones")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    chosen: dict[str, list[Path]] = {}
    for run_id, outcome in Ledger(given.store / "ledger.jsonl").outcomes().items():
        arms = [each.arm for each in outcome.members if each.study == given.study and each.role == "arm"]
        if outcome.status == "finished" and arms:
            chosen.setdefault(arms[0], []).append(given.store / "runs" / run_id / run_folder.LAST)
    found: dict[str, list[Cost]] = {}
    for arm, checkpoints in chosen.items():
        found[arm] = [cost_of(checkpoint, given.data_root) for checkpoint in checkpoints[: given.seeds]]
        print(row(arm, found[arm]), flush=True)
    every = [cost for costs in found.values() for cost in costs]
    sizes = [statistics.mean(cost.megabytes[i] for cost in every) for i in (0, 1)]
    speed = statistics.median(cost.latency_ms[0] / cost.latency_ms[1] for cost in every)
    title = f"{'arm':<22} {'students':>8}  {'float32':>9}  {'INT8':>9}  {'difference':>16}  {'agreement':>10}"
    table = [title, *(row(arm, costs) for arm, costs in found.items()), row("all", every)]
    about = (
        f"{hardware()} The last checkpoints of `{given.study}`, exported in float32 "
        "and in INT8 (onnxruntime's static quantisation, calibrated on at most 64 images of train). mIoU in percent on "
        "all of val; the difference with its standard deviation over students; agreement is the share of pixels to "
        f"which INT8 and torch give the same class, on {IMAGES} images of val. A file has {sizes[1]:.2f} MB instead of "
        f"{sizes[0]:.2f}; an image takes {1 / speed:.2f} x the time of float32 on one thread (median)."
    )
    lines = [*textwrap.wrap(about, 120, break_on_hyphens=False), "", "```", *table, "```"]
    print("\n".join(lines))
    if given.write:
        write(lines, HERE / "RESULTS.md", HEADING)


if __name__ == "__main__":
    main()
