"""All ratios in one table, each measured side by side in one run, with a plot; `make bench` calls it.

Run: python benchmarks/bench.py [--only NAME ... | --write]. `--write` replaces the section of RESULTS.md and
benchmarks/ratios.png, unless a benchmark has failed. What needs Ray is left out where Ray is not installed.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from ratios import FILE, Ratio, recorded

from trainer.files.run_folder import environment
from trainer.measure.device import device_name

HERE = Path(__file__).parent
HEADING = "## Ratios side by side (`make bench`)"


class Benchmark(NamedTuple):
    """A script of this folder and its arguments on a CPU and on a GPU."""

    script: str
    cpu: tuple[str, ...] = ()
    cuda: tuple[str, ...] = ()
    needs: str = "torch"


BENCHMARKS = {
    "step": Benchmark("step.py", ("256", "512", "5"), ("512", "1024", "20", "8", "--compiled")),
    "cohort": Benchmark("cohort.py", ("--size", "128", "256"), ("--size", "512", "1024", "--batch", "8")),
    "evaluation": Benchmark("evaluation.py"),
    "data": Benchmark("data.py", ("256", "512", "32")),
    "workers": Benchmark("workers.py", ("--runs", "3", "--images", "24"), ("--runs", "3"), needs="ray"),
    "orchestration": Benchmark("orchestration.py", needs="ray"),
}


class Measured(NamedTuple):
    """What a benchmark gave."""

    name: str
    command: str
    failed: bool
    ratios: list[Ratio]


def run(name: str, benchmark: Benchmark, file: Path) -> Measured:
    """Run one benchmark; what it prints is seen as it comes."""
    words = [benchmark.script, *(benchmark.cuda if torch.cuda.is_available() else benchmark.cpu)]
    command = f"python benchmarks/{' '.join(words)}"
    print(f"\n$ {command}", flush=True)
    done = subprocess.run(
        [sys.executable, HERE / words[0], *words[1:]], env={**os.environ, FILE: str(file)}, check=False
    )
    if done.returncode:
        print(f"{name} ended with exit code {done.returncode}", flush=True)
    return Measured(name, command, done.returncode != 0, recorded(file))


def table(measured: list[Measured]) -> list[str]:
    """The lines of the table."""
    lines = ["| measure | ratio | at least | command |", "| --- | --- | --- | --- |"]
    for each in measured:
        for found in each.ratios:
            target = "" if found.target is None else f"{found.target:.2f}"
            lines.append(f"| {found.measure} | {found.ratio:.2f} | {target} | `{each.command}` |")
    return lines


def hardware() -> str:
    """The machine and versions in one sentence."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = environment(str(device), device_name(device), torch.get_num_threads(), 1)
    where = known["device_name"] or f"{known['processor']}, {os.cpu_count()} cores"
    versions = f"torch {known['torch']}, timm {known['timm']}, Python {known['python']}"
    return f"{datetime.date.today():%d %B %Y}; {where}; {known['threads']} threads; {versions}."


def write(lines: list[str], path: Path, heading: str = HEADING) -> None:
    """Replace the section of the results."""
    text = path.read_text(encoding="utf-8")
    section = "\n".join([heading, "", *lines, ""])
    found = re.search(rf"^{re.escape(heading)}\n.*?(?=^## |\Z)", text, re.M | re.S)
    if found:
        text = text[: found.start()] + section + "\n" + text[found.end() :]
    else:
        first = text.index("\n## ") + 1
        text = text[:first] + section + "\n" + text[first:]
    path.write_text(text, encoding="utf-8")


def plot(measured: list[Measured], path: Path) -> None:
    """Bars of the ratios, with a mark at each target. Where matplotlib is missing, none."""
    if importlib.util.find_spec("matplotlib") is None:
        print("no plot: matplotlib is not installed")
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [found for each in measured for found in each.ratios][::-1]
    figure, axes = pyplot.subplots(figsize=(11, 0.6 + 0.32 * len(rows)), layout="constrained")
    axes.barh([row.measure for row in rows], [row.ratio for row in rows], color="#3b75af", height=0.62)
    for position, row in enumerate(rows):
        axes.text(row.ratio, position, f" {row.ratio:.2f}", va="center", fontsize=9)
        if row.target is not None:
            axes.plot([row.target, row.target], [position - 0.4, position + 0.4], color="#c44e52", linewidth=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("ratio, logarithmic; above 1 ours is better; red: what it is to reach")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    either = parser.add_mutually_exclusive_group()  # the section is written whole
    either.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    either.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md and benchmarks/ratios.png")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = [
            run(name, benchmark, Path(folder) / name)
            for name, benchmark in BENCHMARKS.items()
            if name in asked.only and importlib.util.find_spec(benchmark.needs)
        ]
    lines = [hardware(), "", *table(measured)]
    print("\n" + "\n".join(lines))
    if failed := [each.name for each in measured if each.failed]:
        sys.exit(f"failed, and nothing is written: {', '.join(failed)}")
    if asked.write:
        write([*lines, "", "![the same as bars](ratios.png)"], HERE / "RESULTS.md")
        plot(measured, HERE / "ratios.png")


if __name__ == "__main__":
    main()
