"""One run's folder: config.yaml, epochs.jsonl, result.json, notes.txt, failure.json, and a lock while it trains.

The folder holds everything about the run: `python -m trainer` needs no ledger, and the ledger is built from folders.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import time
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from trainer.config import NUMERICS_VERSION, TrainConfig, UserError, differences, masked, parse, read_yaml
from trainer.config.input_files import check_own_file
from trainer.files.atomic import replacing, whole_json

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
"""The last epoch, which tables are of; the one before it, while a run trains; the epoch with the highest val/miou."""
RESULT = "result.json"
LOCK = ".lock"
FAILURE = "failure.json"
WRITTEN = (LAST, PREVIOUS, BEST, "epochs.jsonl", RESULT, "panel.png", "notes.txt", FAILURE)
"""The files that a run writes, beside config.yaml, which it writes only where there is none."""

WAITING = ".waiting"
TO_END = ".to_end"
FAULTY_MACHINES = "faulty_machines.txt"
CLOCK = ("seconds", "images_per_s", "system/")
"""Prefixes of metrics that differ between equal runs, because they measure the machine and its load."""


def write_text(path: Path, text: str) -> None:
    """Replace a file's text; a process killed at any moment leaves the old text or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def lock_folder(out: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Lock a run's folder: two processes that train in it would overwrite each other's checkpoints.

    Raises UserError when another process holds the lock and does not release it within `wait_s` seconds. The lock is
    advisory (flock) and ends with its process. On leaving, the lock file is deleted, and the folder too if it is empty.
    """
    path = out / LOCK
    end = time.monotonic() + wait_s
    while True:
        out.mkdir(parents=True, exist_ok=True)
        check_own_file(path)
        try:
            file = path.open("a+", encoding="utf-8")
        except FileNotFoundError:  # the previous holder has just deleted its empty folder
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < end:
                    time.sleep(0.1)
                    continue
                file.seek(0)
                raise UserError(
                    f"{out} is being trained in by process {file.readline().strip() or 'unknown'}; "
                    "wait until it ends, or choose another folder"
                ) from None
            if not _same_file(path, file.fileno()):  # the previous holder has just deleted this lock file
                continue
            file.truncate(0)
            _HELD[out] = f"{os.getpid()}\n{uuid.uuid4().hex}\n"
            file.write(_HELD[out])
            file.flush()
            os.fsync(file.fileno())  # on a network disk it is to be seen elsewhere
            try:
                yield
            finally:
                if not is_lost(out):
                    path.unlink(missing_ok=True)
                    with contextlib.suppress(OSError):
                        out.rmdir()
                del _HELD[out]
            return


_HELD: dict[Path, str] = {}
"""Folder that this process has locked -> what it has written into the lock file."""


class LostFolderError(RuntimeError):
    """Another process has locked a run's folder, which this one had locked."""


def is_lost(out: Path) -> bool:
    """Whether this process had locked the folder of a run, and another one has now. The server of a network disk gives
    a lock to others while a machine is cut off or stands still, and does not tell that machine."""
    try:
        return out in _HELD and (out / LOCK).read_text(encoding="utf-8") != _HELD[out]
    except FileNotFoundError:  # the other one has ended
        return True


def check_held(out: Path) -> None:
    """Raise LostFolderError where `is_lost`: what this process would write, another one has computed again."""
    if is_lost(out):
        raise LostFolderError(f"another process trains in {out} by now: this one was cut off, or stood still")


def _same_file(path: Path, descriptor: int) -> bool:
    """Whether `path` is still the file that `descriptor` has open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def open_folder(out: Path, config: TrainConfig, is_rank_zero: bool) -> None:
    """Make a run's folder, write config.yaml and delete the temporary files of killed attempts; only worker 0 writes.

    A config.yaml that is there stays as it is: it may be the user's own. Raises UserError, in every worker, when the
    folder belongs to another config.
    """
    check_config(out, config)
    if not is_rank_zero:
        return
    for name in WRITTEN:
        check_own_file(out / name)
    for partial in out.glob(".*.*.[0-9]*"):
        partial.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    stored = out / "config.yaml"
    if not stored.exists():
        write_text(stored, yaml.dump(config.whole(), Dumper=_Readable, sort_keys=False, allow_unicode=True))


class _Readable(yaml.SafeDumper):
    """Writes text of several lines, which plugins are, line by line."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Readable.add_representer(str, _Readable.represent_str)


def check_config(out: Path, config: TrainConfig) -> None:
    """Raise UserError, with the values that differ, when the folder belongs to another config."""
    stored = out / "config.yaml"
    if not stored.exists():
        return
    other = parse(read_yaml(stored), str(stored))
    if other.key != config.key:
        raise UserError(
            f"{out} holds a run of another config ({difference(other, config)}); choose another folder"
            + (f"; to go on with its epochs there, add --continue {out}" if is_longer(config, other) else "")
        )


def difference(stored: TrainConfig, config: TrainConfig) -> str:
    """The values in which two configs differ: `optim.lr is 0.001 there and 0.002 here`. At most 5 of them."""
    found = differences(stored.model_dump(mode="json"), config.model_dump(mode="json"))
    listed = [f"{path} is {_short(there)} there and {_short(here)} here" for path, (there, here) in found.items()]
    return ", ".join(listed[:5]) + (f", and {len(listed) - 5} more" if len(listed) > 5 else "")


def is_longer(config: TrainConfig, stored: TrainConfig) -> bool:
    """Whether `config` computes what `stored` does and then more epochs: the learning rate of the schedule `to_end`
    depends on the number of epochs from the first step on, that of `reference` does not."""
    found = differences(stored.model_dump(mode="json"), config.model_dump(mode="json"))
    raised = config.optim.epochs > stored.optim.epochs and config.optim.iterations is None
    return found.keys() == {"optim.epochs"} and raised and config.optim.schedule == "reference"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def write_epochs(out: Path, epochs: list[dict[str, float]]) -> None:
    """Replace epochs.jsonl by these epochs."""
    write_text(out / "epochs.jsonl", "".join(json.dumps(epoch) + "\n" for epoch in epochs))


def append_epoch(out: Path, epoch: dict[str, float]) -> None:
    """Add one line to epochs.jsonl; the checkpoint, which is written first, already holds the same epoch. Raises
    LostFolderError."""
    check_held(out)
    with (out / "epochs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(epoch) + "\n")


def read_epochs(out: Path) -> list[dict[str, float]]:
    """The epochs recorded so far; a line that a killed process left incomplete is skipped."""
    path = out / "epochs.jsonl"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return whole_lines(lines)


def whole_lines(lines: Iterable[str]) -> list[Any]:
    """The values of lines of JSON up to the first that is damaged."""
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


def write_result(out: Path, result: dict[str, Any]) -> None:
    """Write a finished run's result: its last and best metrics, cost and environment. Raises LostFolderError."""
    check_held(out)
    write_text(out / RESULT, json.dumps(result, indent=1) + "\n")


def read_result(out: Path) -> dict[str, Any] | None:
    """The result of a finished run, or None; also None for a damaged file, which the checkpoint can make again."""
    result = whole_json(out / RESULT)
    return result if result is not None and "run_id" in result else None


def has_checkpoint(out: Path) -> bool:
    """Whether the run in folder `out` has its last.pt, and the file is not cut off."""
    return (out / LAST).is_file() and zipfile.is_zipfile(out / LAST)


def clear_result(out: Path) -> None:
    """Delete the result of a run whose checkpoint is gone and which trains again: it has not finished."""
    (out / RESULT).unlink(missing_ok=True)


def environment(device: str, device_name: str, threads: int, world: int, cohort: int = 1) -> dict[str, Any]:
    """Versions and hardware of a run. `device_name` is a GPU's product name, "" on a CPU; `cohort` the number of runs
    that trained side by side."""
    return {
        "numerics": NUMERICS_VERSION,
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "timm": metadata.version("timm"),
        "numpy": metadata.version("numpy"),
        "machine": platform.machine(),
        "processor": _processor(),
        "device": device,
        "device_name": device_name,
        "threads": threads,
        "workers": world,
        "cohort": cohort,
    }


def _processor() -> str:
    """The CPU's model name where /proc/cpuinfo has it, else its architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def append_note(out: Path, text: str) -> None:
    """Add a line to notes.txt: an event that a reader of the run should know of."""
    with (out / "notes.txt").open("a", encoding="utf-8") as file:
        file.write(masked(text) + "\n")


def read_notes(out: Path) -> list[str]:
    """The lines of notes.txt; a line that a killed process left incomplete is skipped."""
    path = out / "notes.txt"
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.is_file() else []


def wait_for_workers(out: Path) -> None:
    """Mark a run of several workers as waiting for machines to place them on."""
    out.mkdir(parents=True, exist_ok=True)
    (out / WAITING).touch()


def workers_begin(out: Path) -> None:
    """Remove that mark, and that of `ask_to_end` for an earlier attempt: the workers are there."""
    waits_no_more(out)
    (out / TO_END).unlink(missing_ok=True)


def waits_no_more(out: Path) -> None:
    """Remove the mark of `wait_for_workers`, which those on another machine may not see."""
    (out / WAITING).unlink(missing_ok=True)


def is_waiting(out: Path) -> bool:
    """Whether a run waits for its workers."""
    return (out / WAITING).exists()


def ask_to_end(out: Path) -> None:
    """Ask a run that trains beside others to end after this epoch, before its last one."""
    (out / TO_END).touch()


def is_asked_to_end(out: Path) -> bool:
    """Whether a run was asked to end early."""
    return (out / TO_END).exists()


def record_faulty_machine(out: Path, node_id: str) -> None:
    """Record the machine, by Ray's id, on which a GPU failed under this run."""
    with (out / FAULTY_MACHINES).open("a", encoding="utf-8") as file:
        file.write(node_id + "\n")


def faulty_machines(out: Path) -> list[str]:
    """The machines on which a GPU has failed under this run, by Ray's ids; those of ended sessions are unknown now."""
    path = out / FAULTY_MACHINES
    return sorted(set(path.read_text(encoding="utf-8").split())) if path.is_file() else []


def write_failure(out: Path, cause: str, reason: str) -> None:
    """Record why an attempt ended: `cause` is one of failure.CAUSES, `reason` one line.

    Of several workers the first failure is kept: the others fail only because they lost that worker.
    """
    if read_failure(out) is not None:
        return
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / FAILURE, json.dumps({"cause": cause, "reason": masked(reason)}) + "\n")


def read_failure(out: Path) -> dict[str, str] | None:
    """Why the last attempt ended, or None; also None for a damaged file."""
    found = whole_json(out / FAILURE)
    return found if found is not None and {"cause", "reason"} <= found.keys() else None


def clear_failure(out: Path) -> None:
    """Delete the record of the last attempt's failure, before a new attempt."""
    (out / FAILURE).unlink(missing_ok=True)
