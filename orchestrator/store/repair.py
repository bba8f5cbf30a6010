"""Repair: keep a copy of a damaged journal, and go on with its whole lines."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from orchestrator.store.events import problem
from orchestrator.store.journal import parse
from trainer.files.atomic import replacing


class Repaired(NamedTuple):
    """The lines that were left out, by number, the number of all lines, and where the damaged file is kept."""

    left_out: list[int]
    lines: int
    copy: Path | None


def repair(journal: Path) -> Repaired:
    """Leave out the damaged lines of a journal, which is copied first; where none is damaged, nothing is written. The
    caller has the lease of those who write it."""
    lines = journal.read_bytes().splitlines(keepends=True)
    whole = [line.isspace() or ((event := parse(line)) is not None and not problem(event)) for line in lines]
    left_out = [number for number, kept in enumerate(whole, 1) if not kept]
    if not left_out:
        return Repaired([], len(lines), None)
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    copy = Path(shutil.copy2(journal, journal.with_name(f"{journal.name}.damaged-{now}")))
    with replacing(journal) as temporary:
        kept = (line.rstrip(b"\n") + b"\n" for line, is_whole in zip(lines, whole, strict=True) if is_whole)
        temporary.write_bytes(b"".join(kept))
    return Repaired(left_out, len(lines), copy)
