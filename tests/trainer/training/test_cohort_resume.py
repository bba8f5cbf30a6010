"""Runs side by side that are ahead, finished, ended early or killed: each ends with the numbers that it has alone."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.training.cohorts import ARMS, Side, arms
from trainer.training.loop import fit

pytestmark = pytest.mark.slow

Make = Callable[..., Any]


def test_members_that_are_ahead_wait_for_those_behind(tiny: Make, side: Side, alone: Make, same_run: Make) -> None:
    configs = arms(tiny, {"optim.epochs": 3, "eval.every": 1})
    for name, epochs in (("csf and pea", 2), ("logits", 1), ("another network", 3)):

        def stop(metrics: dict[str, float], path: Path | None, epochs: int = epochs) -> None:
            if metrics["epoch"] == epochs:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            fit(configs[name], side.place(name), report=stop)
    assert side.train(configs) == dict.fromkeys(configs)
    assert side.epochs == {"alone": [1, 2, 3], "csf and pea": [3], "logits": [2, 3]}
    for name, config in configs.items():
        same_run(side.root / name, alone(config))


def test_what_is_finished_is_reported_and_not_done_again(tiny: Make, side: Side, alone: Make, same_run: Make) -> None:
    configs = {"one": tiny(), "two": tiny({"pea": {}})}
    side.train({"one": configs["one"]})
    before = {path: path.stat().st_mtime_ns for path in (side.root / "one").iterdir()}
    assert side.train(configs) == {"one": None, "two": None}
    assert side.epochs == {"one": [2], "two": [1, 2]}
    assert {path: path.stat().st_mtime_ns for path in (side.root / "one").iterdir()} == before
    same_run(side.root / "two", alone(configs["two"]))
    assert json.loads((side.root / "two" / "result.json").read_text())["environment"]["cohort"] == 1


def test_a_report_may_end_a_member_early(tiny: Make, side: Side, alone: Make, same_run: Make) -> None:
    configs = arms(tiny, {})
    assert side.train(configs, stop={"csf and pea": 1, "logits": 2}) == dict.fromkeys(configs)
    assert side.epochs["csf and pea"] == [1]
    assert not (side.root / "csf and pea" / "result.json").exists()
    for name in ("alone", "logits", "another network"):  # after its last epoch a run has finished
        same_run(side.root / name, alone(configs[name]))
    side.train({"csf and pea": configs["csf and pea"]})
    same_run(side.root / "csf and pea", alone(configs["csf and pea"]))


KILLED = """
import json, sys
from pathlib import Path
from trainer.config import parse
from trainer.place import Place
from trainer.training.loop import fit_together
from trainer.training.member import Run

configs, root, cache = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
def report(metrics, path):
    print(path.parent.name, metrics["epoch"], flush=True)
fit_together([
    Run(parse(config), Place(out_dir=root / name, cache_dir=cache, device="cpu"), report)
    for name, config in configs.items()
])
"""


def test_killed_at_random_moments(tiny: Make, side: Side, alone: Make, same_run: Make) -> None:
    """SIGKILL after a random time, counted from the first report that a process makes; then once to the end."""
    configs = {
        name: tiny(distill, {**own, "optim.epochs": 4 + (name == "alone")}) for name, (distill, own) in ARMS.items()
    }
    plain = json.dumps({name: config.model_dump(mode="json") for name, config in configs.items()})
    command = [sys.executable, "-c", KILLED, plain, str(side.root), str(side.cache)]
    moments = random.Random(0)
    heard, killed = [], 0
    for attempt in range(6):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if attempt < 5:
            heard.append(process.stdout.readline())
            time.sleep(moments.uniform(0.0, 0.3))
            process.kill()
        rest, errors = process.communicate(timeout=300)
        heard += rest.splitlines(keepends=True)
        assert process.returncode in (0, -signal.SIGKILL), errors
        killed += process.returncode == -signal.SIGKILL
    assert process.returncode == 0 and killed >= 3
    for name, config in configs.items():
        same_run(side.root / name, alone(config))
        told = [float(line.split()[-1]) for line in heard if line.startswith(name) and line.endswith("\n")]
        assert told == sorted(told) and told[-1] == config.optim.epochs
    assert all(path.name != ".lock" for path in side.root.rglob("*"))
