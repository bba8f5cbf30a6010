"""Results: a table with its verdicts, as pandas frames and as HTML in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ablations.table.shape import Table
from ablations.table.text import to_plain
from orchestrator.report.page.tables import table_html
from orchestrator.report.table_files import values_of

if TYPE_CHECKING:
    from pandas import DataFrame

STYLE = Markup(
    "<style>.transkd .green {color: #00724f} .transkd .red {color: #b34700} .transkd .cyan {color: #0072b2} "
    ".transkd .dim {color: #666} .transkd .number {text-align: right} .transkd th {font-weight: normal}</style>"
)


@dataclass(frozen=True)
class Results:
    """What a study or a judged file came to. Printed, it is the table as text; in a notebook, the table as HTML."""

    shown: Table = field(repr=False)
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    """A row for each run, or each score."""
    save: Callable[[Path], Path] = field(repr=False)
    """Writes the files of a report into a folder, and returns the page's path."""

    @property
    def table(self) -> DataFrame:
        """The numbers behind the table, a row for each line of it: arm, n, mean, std, reference, difference, p,
        verdict, the limits of the intervals, and the score of each seed."""
        return _frame(values_of(self.shown))

    @property
    def effects(self) -> DataFrame:
        """The main effects and interactions of a study with factors; empty for others."""
        return _frame([row for table in self.shown.more for row in values_of(table)])

    @property
    def runs(self) -> DataFrame:
        """A row for each run: arm, seed, score, and what else is known of it."""
        return _frame(self.rows)

    @property
    def explained(self) -> tuple[str, ...]:
        """Everything that affects how the rows are read, in sentences."""
        return self.shown.explained

    def write(self, folder: str | Path) -> Path:
        """Write the table as text, Markdown, LaTeX, CSV and Parquet, and the page, whose path is returned. Raises
        UserError for a folder in which they cannot be written."""
        return self.save(Path(folder))

    def __str__(self) -> str:
        return to_plain(self.shown)

    def _repr_html_(self) -> str:
        tables = (Markup("<p><b>{}</b> {}</p>{}").format(*_titled(table)) for table in (self.shown, *self.shown.more))
        return str(Markup('{}<div class="transkd">{}</div>').format(STYLE, Markup("").join(tables)))


def _titled(table: Table) -> tuple[str, str, Markup]:
    name, _, about = table.title.partition("   ")
    return name, about, table_html(table)


def _frame(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    from pandas import DataFrame  # half a second

    return DataFrame([dict(row) for row in rows])
