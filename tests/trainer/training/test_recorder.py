"""Recorder: an epoch is reported when its checkpoint is on disk, and never before, whatever kills the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainer.files import generations
from trainer.training.recorder import Recorder


def writer(held: threading.Event, events: list[str], name: str) -> Callable[[], None]:
    """A write that lasts until `held` is set."""

    def write() -> None:
        assert held.wait(10)
        events.append(f"written {name}")

    return write


def test_training_goes_on_while_a_write_lasts_and_the_epoch_is_recorded_after_it() -> None:
    events: list[str] = []
    held = threading.Event()
    with Recorder() as recorder:
        recorder.begin(writer(held, events, "1"), lambda: events.append("recorded 1"))
        for _ in range(5):
            recorder.poll()
        assert events == []
        held.set()
        while events != ["written 1", "recorded 1"]:
            recorder.poll()
        recorder.poll()
        recorder.begin(writer(held, events, "2"), lambda: events.append("recorded 2"))
        recorder.begin(None, lambda: events.append("recorded 3"))
        assert events[2:] == ["written 2", "recorded 2"], "a write that was not over is waited for"
        recorder.poll()
        assert events[4:] == ["recorded 3"], "without a write at once"
        recorder.begin(writer(held, events, "4"), lambda: events.append("recorded 4"))
    assert events[5:] == ["written 4", "recorded 4"]


def fails() -> None:
    raise OSError("full")


def poll_until_it_raises(recorder: Recorder) -> None:
    while True:
        recorder.poll()


def run_that_ends_with(error: BaseException | None, write: Callable[[], None], record: Callable[[], None]) -> None:
    with Recorder() as recorder:
        recorder.begin(write, record)
        if error is not None:
            raise error


def test_a_failed_write_is_raised_and_its_epoch_not_recorded() -> None:
    recorded: list[int] = []
    with Recorder() as recorder:
        recorder.begin(fails, lambda: recorded.append(1))
        with pytest.raises(OSError, match="full"):
            poll_until_it_raises(recorder)
        recorder.begin(fails, lambda: recorded.append(2))
        with pytest.raises(OSError, match="full"):
            recorder.begin(None, lambda: recorded.append(3))
    with pytest.raises(OSError, match="full"):
        run_that_ends_with(None, fails, lambda: recorded.append(4))
    assert recorded == []


def test_what_ends_the_run_is_raised_and_the_epoch_before_is_recorded() -> None:
    events: list[str] = []
    held = threading.Event()
    held.set()
    with pytest.raises(ValueError, match="NaN"):
        run_that_ends_with(ValueError("NaN"), writer(held, events, "1"), lambda: events.append("recorded 1"))
    assert events == ["written 1", "recorded 1"]
    with pytest.raises(ValueError, match="NaN"):
        run_that_ends_with(ValueError("NaN"), fails, lambda: events.append("recorded 2"))
    with pytest.raises(KeyboardInterrupt):
        run_that_ends_with(KeyboardInterrupt(), writer(held, events, "3"), lambda: events.append("recorded 3"))
    assert events[2:] == ["written 3"], "a process that is to end reports nothing more"


KILLED = """
import os, sys
from copy import deepcopy
from functools import partial
from pathlib import Path
import torch
from trainer.files import generations
from trainer.training.recorder import Recorder

def train(out):
    print(os.getpid(), flush=True)
    weights = torch.zeros(400_000)
    with Recorder() as recorder:
        for epoch in range(1, 1000):
            for _ in range(20):
                weights += 0.05
                recorder.poll()
            weights.fill_(float(epoch))
            history = [{"epoch": float(n + 1)} for n in range(epoch)]
            state = {"model": deepcopy(weights), "history": history}
            recorder.begin(partial(generations.save, out, state), partial(print, epoch, flush=True))

for out in map(Path, sys.argv[1:]):
    if not os.fork():  # importing torch takes seconds, and is done once
        train(out)
    os.wait()
    print("ended", flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_the_epochs_that_were_reported(tmp_path: Path) -> None:
    ends = []
    folders = [tmp_path / str(attempt) for attempt in range(12)]
    for out in folders:
        out.mkdir()
    trained = subprocess.Popen([sys.executable, "-c", KILLED, *map(str, folders)], stdout=subprocess.PIPE, text=True)
    assert trained.stdout is not None
    for attempt, out in enumerate(folders):
        child, *reported = (int(trained.stdout.readline()) for _ in range(2 + attempt % 4))
        time.sleep(0.0037 * attempt)
        os.kill(child, signal.SIGKILL)
        reported += map(int, iter(trained.stdout.readline, "ended\n"))
        state = generations.restore(out, torch.device("cpu"), is_rank_zero=True)
        assert state is not None
        epoch = len(state["history"])
        assert epoch in (reported[-1], reported[-1] + 1, reported[-1] + 2)
        assert torch.equal(state["model"], torch.full((400_000,), float(epoch))), "as it was at the end of that epoch"
        assert not (out / "notes.txt").exists(), "no file was damaged"
        ends.append(epoch)
    assert trained.wait() == 0 and len(set(ends)) > 2
