"""Progress: what `fit` prints after each epoch of a run."""

from __future__ import annotations

import sys
import time
from pathlib import Path


class Progress:
    """One line per epoch: rewritten in place on a terminal, appended in a file and of each of several runs."""

    def __init__(self, epochs: int, name: str = "") -> None:
        """`name` is that of the run where several train side by side."""
        self.epochs, self.name = epochs, name
        self.rewritten = sys.stdout.isatty() and not name
        self.started = time.monotonic()
        self.first: float | None = None

    def __call__(self, metrics: dict[str, float], checkpoint: Path | None) -> None:
        """Show the epoch's metrics. `checkpoint` is where it was saved."""
        epoch = metrics["epoch"]
        self.first = self.first or epoch
        left = (self.epochs - epoch) * (time.monotonic() - self.started) / (epoch - self.first + 1)
        losses = " ".join(f"{k.removeprefix('loss/')} {_short(v)}" for k, v in metrics.items() if k.startswith("loss/"))
        miou = f"mIoU {metrics['val/miou']:.2f}  " if "val/miou" in metrics else ""
        line = (
            f"{self.name and f'{self.name}  '}epoch {epoch:.0f}/{self.epochs}  {miou}loss {_short(metrics['loss'])} "
            f"({losses})  lr {metrics['lr']:.2e}  {metrics['images_per_s']:.1f} img/s  {left:.0f} s left"
        )
        print(f"\r\x1b[2K{line}" if self.rewritten else line, end="" if self.rewritten else "\n", flush=True)


def _short(loss: float) -> str:
    """Three decimals; two significant digits below 0.01."""
    return f"{loss:.3f}" if abs(loss) >= 0.01 else f"{loss:.2g}"
