"""The study's tables as HTML: verdicts in colour; the best arm is bold if the verdicts support it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ablations.study.metric import described
from ablations.table.marks import mark_note, marks
from ablations.table.shape import Column, Row, Table, number
from ablations.table.text import below
from orchestrator.report.page.data import Report
from orchestrator.report.page.parts import Section
from orchestrator.terminal.table import ALARMS, COLOURS

TAGS = {"best": Markup("<strong>{}</strong>"), "second": Markup("<u>{}</u>")}


def section(report: Report) -> Section:
    """The study's table, and the further tables with their titles as captions."""
    caption = f"{described(report.study.metric)} of each seed at the last epoch"
    more = (table_html(table, table.title.replace("   ", ": ", 1)) for table in report.table.more)
    seeds = sorted({seed for scores in report.scores.values() for seed in scores})
    return Section("table", "Results", (table_html(report.table), *more, *by_seed(report.scores, seeds, caption)))


def by_seed(
    scores: Mapping[str, Mapping[Any, float]], seeds: Sequence[Any], caption: str, digits: int = 2
) -> list[Markup]:
    """The score of each seed by arm, folded; of rows of more than one seed."""
    if len(seeds) < 2:
        return []
    rows = tuple(Row((arm, *(number(own.get(seed), digits) for seed in seeds)), {}) for arm, own in scores.items())
    columns = (Column("arm"), *(Column(f"seed {seed}", right=True) for seed in seeds))
    listed = table_html(Table("", columns, rows, ()), caption)
    return [Markup("<details><summary>Values of each seed</summary>{}</details>").format(listed)]


def table_html(table: Table, caption: str = "") -> Markup:
    """A table in a scrollable box, and its notes."""
    marked = marks(table)
    head = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(_align(column.right), column.heading) for column in table.columns
    )
    body = Markup("\n").join(_row(table, row, marked.get(i)) for i, row in enumerate(table.rows))
    notes = below(table, mark_note(table, "bold", "underlined"))
    listed = Markup("").join(
        Markup("<li{}>{}</li>").format(Markup(' class="warn"') if note.startswith(ALARMS) else "", note)
        for note in notes
    )
    return Markup(
        '<div class="scroll"><table>\n{}<thead><tr>{}</tr></thead>\n'
        "<tbody>\n{}\n</tbody></table></div>"
        '<ul class="notes">{}</ul>{}'
    ).format(Markup("<caption>{}</caption>\n").format(caption) if caption else "", head, body, listed, _fold(table))


def _fold(table: Table) -> Markup:
    """What `transkd explain` prints, folded."""
    if not table.explained:
        return Markup("")
    said = Markup("").join(Markup("<li>{}</li>").format(text) for text in table.explained)
    return Markup("<details><summary>How to read this table</summary><ul>{}</ul></details>").format(said)


def _row(table: Table, row: Row, mark: str | None) -> Markup:
    cells = []
    for i, (text, column) in enumerate(zip(row.cells, table.columns, strict=True)):
        shown: str | Markup = text
        if column.marked and mark:
            shown = TAGS[mark].format(text)
        elif i and text in COLOURS:
            shown = Markup('<span class="{}">{}</span>').format(COLOURS[text], text)
        elif column.heading == "n" and "/" in text:
            shown = Markup('<span class="yellow">{}</span>').format(text)
        tag = Markup('<th scope="row"{}>{}</th>') if i == 0 else Markup("<td{}>{}</td>")
        cells.append(tag.format(_align(column.right), shown))
    kind = Markup(' class="teacher"') if row.values.get("role") == "teacher" else ""
    return Markup("<tr{}>{}</tr>").format(kind, Markup("").join(cells))


def _align(right: bool) -> Markup:
    return Markup(' class="number"') if right else Markup("")
