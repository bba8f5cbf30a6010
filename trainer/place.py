"""Place: the settings of a run that must not change its numbers. They are not part of its id."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from trainer.config.input_files import with_home


def default_cache() -> Path:
    """Folder for decoded data and generated scenes: `TRANSKD_CACHE`, else `~/.cache/transkd`."""
    return Path(with_home(os.environ.get("TRANSKD_CACHE") or "~/.cache/transkd")).absolute()


@dataclass(frozen=True)
class Place:
    """Where a run's files are and on which device it runs; equal runs may have different places."""

    out_dir: Path
    """Folder of this run: config.yaml, epochs.jsonl, result.json, last.pt (the last epoch, which tables are of) and
    best.pt (the epoch with the highest val/miou)."""
    data_root: Path | None = None
    """Folder of the data set; None for a data set that generates its images (`scenes`)."""
    cache_dir: Path = field(default_factory=default_cache)
    """Folder of packed (decoded and resized) splits, shared by all runs."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1` or `auto`."""
    threads: int = 1
    """CPU threads of torch in this process."""
    micro_batch: int | None = None
    """Samples in one forward pass; default: all of a worker's share of the global batch."""
    teacher: Path | None = None
    """Weights of the teacher that the study has trained, for configs with `teacher.train`."""
    checkpoint_every: int = 1
    """Epochs from one checkpoint to the next; a run that is stopped repeats at most so many."""
    compile: bool = False
    """Compile the student and its paths with `torch.compile`."""
