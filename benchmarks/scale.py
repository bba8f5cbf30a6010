"""What studies of thousands of runs cost their driver, by size: seconds, CPU, peak memory, and how they grow.

Real command lines in stores that are thrown away; `driver_cost.py` measures the calls within a driver. Nothing
here imports torch: the peak of a process is at least what its parent had when it was born. Run:
python benchmarks/scale.py [--sizes 1000 10000] [--rows plan status report run start watch search] [--most 400]
`--rows tracked` is `run` beside an MLflow that has everything, which takes half a second a run to send first.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

from orchestrator.store.fold import journals
from orchestrator.store.folder import Store

ROOT = Path(__file__).parents[1]
EPOCHS = 20
NOBODY = "http://127.0.0.1:1"
"""Where no tracking answers: then what a command costs is its own."""
END_S = 180.0
"""Longest wait for a driver that was told to end, and for its Ray."""
SMALL: dict[str, Any] = {
    "data": {"name": "scenes", "size": [64, 128], "options": {"train": 8, "val": 4, "size": [64, 128]}},
    "student": {"name": "segformer_mini"},
    "teacher": {"name": "segformer_b0", "train": {"epochs": EPOCHS}},
    "optim": {"lr": 1.0e-3, "epochs": EPOCHS, "global_batch": 8, "norm_batch": 4},
    "distill": {"csf": {}, "pea": {}},
}
ALONE: dict[str, Any] = {
    "data": SMALL["data"],
    "student": {"name": "segformer_tiny"},
    "optim": {"lr": 1.0e-3, "epochs": 1, "global_batch": 8},
}
"""A run that waits for no teacher."""
FACTORS: dict[str, list[Any]] = {
    "optim.lr": [1.0e-4, 3.0e-4, 1.0e-3, 3.0e-3, 1.0e-2],
    "distill.csf.weight": [0.1, 0.3, 1.0, 3.0, 10.0],
    "distill.pea.weight": [0.1, 0.3, 1.0, 3.0, 10.0],
    "distill.csf.options.norm": ["layer", "reference"],
}
SEEDS = 40
"""As many as a study may have."""


def grid(runs: int) -> dict[str, Any]:
    """A study of so many runs and a teacher: of 10,000 all factors at 40 seeds, of 1,000 the first two."""
    seeds = min(SEEDS, runs // 5)
    factors, left = {}, runs // seeds
    for path, levels in FACTORS.items():
        if left % len(levels) == 0:
            factors[path], left = levels, left // len(levels)
    assert left == 1 and runs % seeds == 0, f"no grid has {runs} runs; take 100, 400, 1000, 2000 or 10000"
    return {"name": "grid", "base": SMALL, "factors": factors, "seeds": seeds}


def alone(runs: int) -> dict[str, Any]:
    """A study of so many runs whose first is due at once."""
    seeds = min(SEEDS, runs // 5)
    rates = [1.0e-5 * step for step in range(1, runs // seeds + 1)]
    return {"name": "alone", "base": ALONE, "factors": {"optim.lr": rates}, "seeds": seeds}


class Cost(NamedTuple):
    """What something took; infinite where it was ended before its time came."""

    seconds: float
    cpu_s: float
    """Of all its threads: what the seconds are where nothing else runs."""
    peak_mib: float = math.nan


class Line(NamedTuple):
    """A line of the table at one size."""

    what: str
    target: str
    cost: Cost


@dataclass
class Bench:
    """One size of a study, in a folder of its own. `most_s` is the longest that a command may take."""

    runs: int
    folder: Path
    most_s: float

    def file(self, study: dict[str, Any]) -> Path:
        """The study as a file."""
        path = self.folder / f"{study['name']}.yaml"
        path.write_text(yaml.safe_dump(study, sort_keys=False))
        return path

    @cached_property
    def grid(self) -> Path:
        return self.file(grid(self.runs))

    @cached_property
    def full(self) -> Path:
        """A store in which the grid has finished; it knows the grid's structures, as every store that has run one."""
        root = self.folder / "full"
        self.timed([str(ROOT / "benchmarks" / "scale_store.py"), str(self.grid), str(root)])
        self.command("plan", str(self.grid), "--no-probe", store=root)
        return root

    def command(self, *words: str, store: Path, tracking: str | None = None) -> Cost:
        """What `transkd WORDS` takes on a store."""
        return self.timed(["-m", "orchestrator", *words, "--store", str(store)], tracking)[0]

    def timed(self, words: list[str], tracking: str | None = None) -> tuple[Cost, str]:
        """What `python WORDS` takes, and its last line."""
        with tempfile.TemporaryFile() as out:
            started = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *words], stdout=out, stderr=out, env=_environment(self.folder, tracking)
            )
            timer = threading.Timer(self.most_s, process.kill)
            timer.start()
            _, status, usage = os.wait4(process.pid, 0)
            timer.cancel()
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            said = out.read().decode().splitlines()
        if seconds >= self.most_s:
            return Cost(math.inf, math.inf, usage.ru_maxrss / 1024), ""
        assert process.returncode == 0, "\n".join([" ".join(words), *said[-20:]])
        return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024), "".join(said[-1:])


def _environment(folder: Path, tracking: str | None) -> dict[str, str]:
    hidden = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "TRANSKD_CACHE")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    ours = {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    return {**kept, **ours} | ({"MLFLOW_TRACKING_URI": tracking} if tracking else {})


def plan(bench: Bench) -> Iterator[Line]:
    words, fresh = ("plan", str(bench.grid), "--no-probe"), bench.folder / "fresh"
    yield Line("plan, first time", "< 6 s", bench.command(*words, store=fresh))
    yield Line("plan, again", "< 4 s", bench.command(*words, store=fresh))


def status(bench: Bench) -> Iterator[Line]:
    yield Line("status, all finished", "< 3 s", bench.command("status", str(bench.grid), store=bench.full))


def report(bench: Bench) -> Iterator[Line]:
    cost = bench.command("report", str(bench.grid), store=bench.full)
    yield Line("report, all finished", "< 20 s, < 500 MiB", cost)


def run(bench: Bench) -> Iterator[Line]:
    cost = bench.command("run", str(bench.grid), store=bench.full, tracking=NOBODY)
    yield Line("run, nothing to do", "< 20 s", cost)


def tracked(bench: Bench) -> Iterator[Line]:
    words, own = (str(bench.grid),), f"sqlite:///{bench.folder / 'mlflow.db'}"
    cost = bench.command("sync", *words, store=bench.full, tracking=own)
    yield Line("sync of all to an empty MLflow", "", cost)
    if math.isfinite(cost.seconds):
        cost = bench.command("run", *words, store=bench.full, tracking=own)
        yield Line("run, nothing to do, nor to track", "< 20 s", cost)


def start(bench: Bench) -> Iterator[Line]:
    """The driver alone, up to the first run's start; then it is told to end."""
    store, file = Store(bench.folder / "started"), bench.file(alone(bench.runs))
    words = [sys.executable, "-m", "orchestrator", "run", str(file), "--store", str(store.root)]
    said, begin = bench.folder / "started.log", time.perf_counter()
    with said.open("w") as out:
        driver = psutil.Popen(words, stdout=out, stderr=out, env=_environment(bench.folder, NOBODY))
    try:
        while not _started(store) and time.perf_counter() - begin < bench.most_s:
            assert driver.poll() is None, f"{' '.join(words)} ended before a run began: {said.read_text()[-1000:]}"
            time.sleep(0.05)
        seconds, cpu, peak = time.perf_counter() - begin, driver.cpu_times(), _peak_mib(driver.pid)
        late = not _started(store)
        cost = Cost(math.inf, math.inf, peak) if late else Cost(seconds, cpu.user + cpu.system, peak)
    finally:
        _end(driver)
    yield Line("run, until the first run starts", "< 60 s, < 1536 MiB", cost)


def _started(store: Store) -> bool:
    return any(path.exists() and '"event": "started"' in path.read_text() for path in journals(store.ledger))


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _end(driver: psutil.Popen) -> None:
    """Tell a driver to end, wait for it and its Ray, and say what had to be killed."""
    if driver.poll() is None:
        below = driver.children(recursive=True)
        driver.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs([driver, *below], timeout=END_S)
        for process in left:
            print(f"killed, {END_S:.0f} s after its driver was told to end: {process}", file=sys.stderr)
            process.kill()


def watch(bench: Bench) -> Iterator[Line]:
    yield from _within(bench, "the driver's part of 100 runs more", "flat", "watch", str(bench.runs))


def search(bench: Bench) -> Iterator[Line]:
    for sampler in ("random", "tpe"):
        yield from _within(
            bench, f"search of a fifth as many trials, {sampler}", "< 30 s", sampler, str(bench.runs // 5)
        )


def _within(bench: Bench, what: str, target: str, *words: str) -> Iterator[Line]:
    cost, said = bench.timed([str(ROOT / "benchmarks" / "driver_cost.py"), *words])
    parts = json.loads(said) if said else {"": (math.inf, math.inf)}
    for part, taken in parts.items():
        yield Line(f"  {words[0]}: {part}" if part else what, "" if part else target, Cost(*taken, cost.peak_mib))


ROWS: dict[str, Callable[[Bench], Iterator[Line]]] = {
    row.__name__: row for row in (plan, status, report, run, tracked, start, watch, search)
}


def table(found: dict[tuple[str, str], dict[int, Cost]], sizes: Sequence[int], most_s: float) -> Iterator[str]:
    """The lines of the table: of every size, seconds, CPU seconds and MiB; the target; and the exponent of growth."""
    heads = "".join(f"{f'{size:,}: s':>12}{'CPU s':>9}{'MiB':>7}" for size in sizes)
    yield f"{'':42}{heads}   {'target':20}{'exponent':>8}"
    for (what, target), costs in found.items():
        cells = "".join(_cells(costs.get(size), most_s) for size in sizes)
        yield f"{what:42}{cells}   {target:20}{_exponent(costs):>8}"


def _exponent(costs: dict[int, Cost]) -> str:
    """Of the growth between the two largest sizes that came to their end."""
    known = [(size, cost.seconds) for size, cost in costs.items() if math.isfinite(cost.seconds)]
    if len(known) < 2:
        return "-"
    (small, less), (large, more) = known[-2:]
    return f"{math.log(more / less) / math.log(large / small):.2f}"


def _cells(cost: Cost | None, most_s: float) -> str:
    if cost is None:
        return f"{'-':>12}{'-':>9}{'-':>7}"
    taken = [f"{s:.1f}" if math.isfinite(s) else f"> {most_s:.0f}" for s in (cost.seconds, cost.cpu_s)]
    return f"{taken[0]:>12}{taken[1]:>9}{cost.peak_mib:7.0f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 10000], help="runs of a study")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=[row for row in ROWS if row != "tracked"])
    parser.add_argument("--most", type=int, default=10**9, help="runs beyond which a size is cut to so many")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds that a command may take")
    given = parser.parse_args()
    sizes = sorted({min(size, given.most) for size in given.sizes})
    found: dict[tuple[str, str], dict[int, Cost]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(size, Path(folder), given.timeout)
            for row in given.rows:
                try:
                    for what, target, cost in ROWS[row](bench):
                        found.setdefault((what, target), {})[size] = cost
                        print(f"{size:6} {what:42}{_cells(cost, given.timeout)}", file=sys.stderr)
                except AssertionError as error:
                    print(f"{size:6} {row} failed: {error}", file=sys.stderr)
    print(f"runs finished with {EPOCHS} epochs x 20 metrics each; the exponent is of seconds")
    print("\n".join(table(found, sizes, given.timeout)))


if __name__ == "__main__":
    main()
