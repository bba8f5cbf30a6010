"""Print a table: on a terminal in colour and split to its width, elsewhere as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from ablations.study.metric import CONDITIONS
from ablations.table.shape import Row, Table
from ablations.table.text import below, to_plain

UNDERLINE = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
"""A line under the headings and nothing else."""
GAP = 2
"""Spaces between columns."""
BESIDE = (
    *("best", "published", "reproduced", "seeds lacking", "params (M)", "GMACs (paper)", "GMACs (all)", "ms", "MiB"),
    "test mIoU",
    *(part for parts in CONDITIONS.values() for part in parts),
)
"""Columns that move to a second block on a narrow terminal, so that differences stay next to their verdicts."""
CONTRAST = ("vs", "difference [interval]", "verdict")
"""Columns that stay in one block where it is wide enough."""
COLOURS = {
    "better": "green",
    "finished": "green",
    "worse": "red",
    "failed": "red",
    "equivalent": "cyan",
    "undecided": "dim",
    "not yet": "dim",
    "stopped": "dim",
    "yes": "green",
    "no": "red",
    "recipe differs": "yellow",
    "recipe unknown": "yellow",
}
"""Colours of verdicts, of reproduction results and of trial states."""
ALARMS = ("not finished", "not counted", "n too small", "unequal", "recipe differs")
"""Notes that begin so are printed as warnings."""


def show(table: Table, console: Console | None = None) -> None:
    """Print the table and those below it: in colour on a terminal; into a pipe or file as plain text, never wrapped."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.file.write(to_plain(table))
        return
    name, _, about = table.title.partition("   ")
    console.print(Text(name, style="bold"), Text(about, style="dim"), sep="   ", highlight=False)
    for number, block in enumerate(_blocks(table, console.width)):
        if number:
            console.print()
        console.print(_grid(table, block))
    for note in below(table):
        style = "yellow" if note.startswith(ALARMS) else "dim"
        console.print(Padding(Text(note, style=style), (0, 0, 0, 1)), highlight=False)
    for further in table.more:
        console.print()
        show(further, console)


def _blocks(table: Table, width: int) -> list[list[int]]:
    """Column numbers, split into blocks that fit the width. Each block starts with the first column."""
    widths = [
        max(cell_len(text) for text in (column.heading, *(row.cells[i] for row in table.rows)))
        for i, column in enumerate(table.columns)
    ]
    contrast = [i for i, column in enumerate(table.columns) if column.heading in CONTRAST]
    columns = range(1, len(widths))
    beside = [i for i in columns if table.columns[i].heading in BESIDE]
    fits = sum(widths) + GAP * (len(widths) - 1) <= width
    blocks = []
    for group in [list(columns)] if fits else [[i for i in columns if i not in beside], beside]:
        block = [0]
        for i in group:
            together = contrast if contrast[:1] == [i] else [i]
            if len(block) > 1 and sum(widths[k] + GAP for k in (*block, *together)) - GAP > width:
                blocks.append(block)
                block = [0]
            block.append(i)
        if len(block) > 1:
            blocks.append(block)
    return blocks


def _grid(table: Table, block: Sequence[int]) -> Grid:
    grid = Grid(box=UNDERLINE, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="dim")
    for i in block:
        column = table.columns[i]
        # The first column may fold, where even two columns are too wide; numbers never do.
        grid.add_column(Text(column.heading), justify="right" if column.right else "left", no_wrap=i > 0)
    for row in table.rows:
        if any(row.cells[i] for i in block[1:]):
            grid.add_row(
                *(_cell(table, row, i) for i in block), style="dim" if row.values.get("role") == "teacher" else ""
            )
    return grid


def _cell(table: Table, row: Row, i: int) -> Text:
    text = row.cells[i]
    if i == 0:
        return Text(text)
    if table.columns[i].heading == "n" and "/" in text:
        return Text(text, style="yellow")
    return Text(text, style=COLOURS.get(text, ""))
