"""A study's runs in Weights & Biases: a project a study, a group an arm. With WANDB_MODE=offline they are written below
the store, and `wandb sync` sends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.tracking.run_record import Record


class WeightsAndBiases:
    """Sends a run when it has ended, whole: one process of wandb serves a run at a time.

    Address, key and mode are wandb's own, from its settings (WANDB_BASE_URL, WANDB_API_KEY, WANDB_MODE).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def send(self, record: Record) -> None:
        """Send the epochs of a run that has ended which were not sent, and its summary. Raises what wandb raises."""
        if record.status == "running":
            return
        note = self.folder / "sent" / f"{record.study} {record.run_id}.json"
        sent: dict[str, Any] = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
        if sent.get("content") == record.content:
            return
        held = set(sent.get("epochs", []))
        epochs = record.points(held)
        run = self._begin(record)
        try:
            for epoch, points in epochs.items():
                run.log({point.name: point.value for point in points}, step=epoch)
            run.summary.update(record.summary)
        finally:
            run.finish(exit_code=0 if record.status in ("finished", "stopped") else 1)
        note.parent.mkdir(parents=True, exist_ok=True)
        told = {"content": record.content, "epochs": sorted(held | epochs.keys())}
        note.write_text(json.dumps(told), encoding="utf-8")

    def _begin(self, record: Record) -> Any:
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True, save_code=False)
        return wandb.init(
            project=f"transkd-{record.study}",
            id=record.run_id,
            name=record.tags["mlflow.runName"],
            group=record.arm,
            job_type=record.role,
            config={**record.run.config, "transkd": _described(record)},
            dir=str(self.folder),
            resume="allow",
            reinit="finish_previous",
            settings=quiet,
        )


def _described(record: Record) -> dict[str, str]:
    """What the ledger knows of the run, under our names without their prefix."""
    return {name.removeprefix("transkd."): text for name, text in record.tags.items() if name.startswith("transkd.")}
