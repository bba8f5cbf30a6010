"""A study's runs as event files of TensorBoard: `tensorboard --logdir STORE/tensorboard/STUDY`."""

from __future__ import annotations

from pathlib import Path
from time import time
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml

from orchestrator.tracking.run_record import Record
from trainer.config import digest

SENT = "sent"
"""A file beside a run's events: the content of the run when it had ended and all of it was written."""
LONGEST_FILE_NAME = 255


class _Open(NamedTuple):
    """A run whose events are being written by this process."""

    writer: Any
    epochs: set[int]


class TensorBoard:
    """Writes event files below a folder. The first call for a run writes it anew, from its first epoch: event files
    cannot be edited, and a process that was killed may have written a part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, _Open] = {}

    def send(self, record: Record) -> None:
        """Write the epochs that are new; of a run that has ended also its config, and close it."""
        folder = self.folder / record.study / _folder_of(record.arm) / f"seed {record.seed}"
        running = record.status == "running"
        sent = folder / SENT
        if not running and sent.is_file() and sent.read_text(encoding="utf-8") == record.content:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar, text

        writer, held = self._open.get(record.run_id) or self._begin(folder, record.run_id)
        epochs = record.points(held)
        for points in epochs.values():
            for point in points:
                summary = scalar(point.name, point.value)
                writer.write_event(Event(summary=summary, step=point.step, wall_time=point.time_ms / 1e3))
        held.update(epochs)
        if running:
            writer.flush()
            return
        config = yaml.safe_dump(record.run.config, sort_keys=False)
        writer.write_event(Event(summary=text("config", f"```yaml\n{config}```"), wall_time=time()))
        writer.close()
        del self._open[record.run_id]
        sent.write_text(record.content, encoding="utf-8")

    def _begin(self, folder: Path, run_id: str) -> _Open:
        # not SummaryWriter: its thread writes later, so that `flush` may leave a part unwritten
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(parents=True, exist_ok=True)
        for old in (*folder.glob("events.out.tfevents.*"), *folder.glob(SENT)):
            old.unlink()
        self._open[run_id] = _Open(EventsWriter(str(folder / "events")), set())
        return self._open[run_id]


def _folder_of(arm: str) -> str:
    """The name of an arm's folder: `..` and what is too long for one, as codes of letters make it, get a digest."""
    name = quote(arm, safe=" ")
    return name if name.strip(".") and len(name) <= LONGEST_FILE_NAME else f"{name[:200]} {digest(arm)}"
