"""What `data check` prints of a data set: its splits, classes and problems, and the progress of reading them."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from trainer.config import printable
from trainer.place import default_cache

if TYPE_CHECKING:
    from trainer.data import SegDataset
    from trainer.data.check import Contents
    from trainer.data.pairing import Split

SHOWN = 20
"""Most problems that are listed; the rest is only counted."""

NO_BREAK_SPACE = "\xa0"
"""A space at which textwrap breaks no line."""


def report(
    dataset: SegDataset, name: str, *, subset: bool, known: Sequence[str] = ()
) -> tuple[list[str], dict[Split, Contents]]:
    """Read and print all splits; returns what is wrong, `known` problems first, and the splits' contents."""
    from trainer.data.check import check_split, damaged_packs, leaks

    console = Console(highlight=False)
    console.print(Text(printable(f"{name} in {dataset.root}"), style="bold"), soft_wrap=True)
    problems = [*known]
    found: dict[Split, Contents] = {}
    for split in dataset.splits:
        found[split] = check_split(dataset, split, subset=subset, progress=Progress(split), before=found)
        _show(dataset, split, found[split], console)
        problems += found[split].problems
    problems += leaks(found) + damaged_packs(name, default_cache())
    distinct = _deduplicated(problems)
    for problem in distinct[:SHOWN]:
        console.print(Text.assemble(("problem: ", "bold red"), printable(problem)), soft_wrap=True)
    hidden = len(distinct) - SHOWN
    count = f"{len(distinct)} problem{'' if len(distinct) == 1 else 's'}"
    if distinct:
        console.print(Text(f"{count}, {hidden} of them not shown" if hidden > 0 else count, style="red"))
    else:
        console.print(Text("no problems", style="green"))
    return distinct, found


class Progress:
    """Progress of reading a split: rewritten in place on a terminal, one line per minute in a file."""

    def __init__(self, split: str) -> None:
        self.split = split
        self.terminal = sys.stderr.isatty()
        self.said = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        """Print the progress, unless the last print is too recent."""
        now = time.monotonic()
        if self.terminal and done == of:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
        elif now - self.said > (0.1 if self.terminal else 60):
            line = f"{self.split}: {done} of {of} read"
            print(f"\r\x1b[2K{line}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr)
            sys.stderr.flush()
            self.said = now


def _show(dataset: SegDataset, split: str, contents: Contents, console: Console) -> None:
    """Print one split's size, fingerprint, conditions and class shares."""
    sizes = [f"{size[1]}x{size[0]}" for size, _ in contents.sizes.most_common()]
    size = f"  {sizes[0] if len(sizes) == 1 else f'{len(sizes)} sizes'} (width x height)" if sizes else ""
    identity = contents.fingerprint or "none: no run would start"
    console.print(
        Text.assemble(
            (f"{split:5}  ", "bold"),
            f"{contents.pairs} pairs{size}  fingerprint ",
            (identity, "cyan"),
        ),
        soft_wrap=True,
    )
    if contents.conditions:
        console.print(f"       {', '.join(f'{name} {count}' for name, count in sorted(contents.conditions.items()))}")
    labelled = int(contents.counts.sum())
    if labelled:
        shares = sorted(zip(contents.counts / labelled, dataset.classes, strict=True), reverse=True)
        listed = ", ".join(
            f"{name.replace(' ', NO_BREAK_SPACE)}{NO_BREAK_SPACE}{share:.1%}" for share, name in shares if share > 0
        )
        never = ", ".join(name for share, name in shares if share == 0)
        ignored = contents.ignored / (labelled + contents.ignored)
        text = f"{listed}{f'; never: {never}' if never else ''}; {ignored:.1%} of all pixels ignored"
        for line in textwrap.wrap(text, min(console.width, 120) - 7):
            console.print(Text(f"       {line.replace(NO_BREAK_SPACE, ' ')}", style="dim"))
    if split == "train" and not dataset.official.train and contents.scale is not None:
        line = f"       normalize: {{mean: {list(contents.scale.mean)}, std: {list(contents.scale.std)}}}"
        console.print(Text(line), soft_wrap=True)


def _deduplicated(problems: list[str]) -> list[str]:
    """Each problem once (overlapping lists are reported for both splits); each layout only with its first problem."""
    from trainer.data.pairing import EXPECTED

    shown: set[str] = set()
    lines = []
    for problem in dict.fromkeys(problems):
        fault, _, layout = problem.partition(EXPECTED)
        lines.append(fault if layout in shown else problem)
        shown |= {layout} if layout else set()
    return lines
