"""Frame: columns by name, read from a CSV or Parquet file or from Python, and the place of each row for messages."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import UserError, counted, message_of, read_text, shown
from trainer.config.input_files import check_regular

SEPARATORS = (",", ";", "\t")
OTHER_FILES = {
    "a spreadsheet": ("save its sheet as CSV", (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")),
    "compressed": ("unpack it", (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z")),
    "no table": ("save its table as CSV", (".json", ".jsonl", ".feather", ".arrow", ".pkl", ".pickle", ".npy", ".npz")),
}
"""What files of other endings are: the remedy, and the endings."""
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+([eE][-+]?\d+)?\s*")
WHOLE = re.compile(r"\s*[-+]?\d+\s*")
UNNAMED = re.compile(r"unnamed \d+|Unnamed: \d+|__index_level_\d+__")
"""Names of columns that have none: ours, pandas', and those of its indices in Parquet."""


@dataclass(frozen=True)
class Frame:
    """Columns of equal length. A cell is text, a number or None; an empty text counts as None."""

    source: str
    """The file, or where else the columns come from, for messages."""
    columns: dict[str, list[Any]]
    rows: list[str]
    """The place of each row, such as `row 5`: the line of a file, counted as a spreadsheet does."""
    remarks: tuple[str, ...] = ()
    """What was decided in reading, in sentences."""

    def take(self, kept: Iterable[int]) -> Frame:
        """The frame of these rows alone."""
        which = list(kept)
        columns = {name: [cells[i] for i in which] for name, cells in self.columns.items()}
        return Frame(self.source, columns, [self.rows[i] for i in which], self.remarks)


def read_frame(path: Path) -> Frame:
    """The columns of a CSV or Parquet file. Raises UserError for a file that is neither, empty or irregular."""
    check_regular(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a CSV or Parquet file")
    for what, (remedy, endings) in OTHER_FILES.items():
        if path.suffix.lower() in endings:
            raise UserError(f"{path} is {what}, and CSV or Parquet is read; {remedy} and give that")
    if path.suffix.lower() in (".parquet", ".pq"):
        return _parquet(path)
    return _csv(read_text(path), str(path))


def frame_of(columns: Mapping[str, Iterable[Any]] | Any, source: str = "the frame") -> Frame:
    """The frame of a pandas DataFrame, whose named indices are columns and whose NaN are empty cells, or of columns by
    name. Raises UserError for what is neither, and for columns of unequal length."""
    frame: Any = columns
    of_pandas = hasattr(frame, "reset_index")
    if of_pandas and any(frame.index.names):
        frame = frame.reset_index()
    try:
        columns_of = [[_plain(cell) for cell in frame[name]] for name in frame]
    except (TypeError, ValueError, IndexError):
        raise UserError(
            f"a frame has columns by name, as a pandas DataFrame or a dict of lists, but got a {type(columns).__name__}"
            " of other things; make a DataFrame of it"
        ) from None
    found = dict(zip(_names(map(str, frame), source), columns_of, strict=True))
    if of_pandas:
        found = {name: [None if cell != cell else cell for cell in cells] for name, cells in found.items()}
    lengths = {len(cells) for cells in found.values()}
    if len(lengths) > 1:
        raise UserError(
            f"{source}: columns must have equal lengths, but got {', '.join(map(str, sorted(lengths)))}; fill the "
            "shorter ones with None"
        )
    return _checked(Frame(source, found, [f"row {i}" for i in range(max(lengths, default=0))]))


def _plain(cell: Any) -> Any:
    """A cell as Python's own type: numpy's scalars have `item`. pandas' NA and NaT are None."""
    value = cell.item() if hasattr(cell, "item") else cell
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _parquet(path: Path) -> Frame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except pa.ArrowException as error:
        raise UserError(f"{path} is not a Parquet file: {message_of(error)}; save it again") from None
    names = _names(table.column_names, str(path))
    columns = {
        name: [_text(cell) for cell in cells.to_pylist()] for name, cells in zip(names, table.columns, strict=True)
    }
    return _checked(Frame(str(path), columns, [f"row {i + 1}" for i in range(table.num_rows)]))


def _text(cell: Any) -> Any:
    """A cell of Parquet: what some programs write as bytes is text."""
    return cell.decode(errors="replace") if isinstance(cell, bytes) else cell


def _names(given: Iterable[str], source: str) -> list[str]:
    """The names of columns, in one line each: `unnamed 3` where there is none. Raises UserError for a name that stands
    twice or cannot be printed."""
    names = [name.strip() if name.strip().isprintable() else " ".join(name.split()) for name in given]
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise UserError(f"{source}: each column needs its own name, but '{twice[0]}' stands twice; rename one")
    if hidden := [name for name in names if not name.isprintable()]:
        raise UserError(
            f"{source}: a column's name must be of printable characters, but got {shown(hidden[0])}; rename it, and "
            "save the file as UTF-8"
        )
    return [name or f"unnamed {i}" for i, name in enumerate(names, 1)]


def _csv(text: str, source: str) -> Frame:
    separator, text, first = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    lines: list[tuple[int, list[str]]] = []
    before = 0
    try:
        for cells in reader:
            before = reader.line_num
            if any(cell.strip() for cell in cells):
                lines.append((reader.line_num + first, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise UserError(
            f"{source}: row {before + first + 1}: {message_of(error)}; a cell that begins with a quote must end with "
            "one, and doubles those inside"
        ) from None
    if not lines:
        raise UserError(f"{source} is empty; give a file with a line of column names and a line for each run")
    (_, line_of_names), *rows = lines
    names = _names(line_of_names, source)
    if len(names) == 1:
        raise UserError(
            f"{source}: the first line must name two columns or more, separated by commas, semicolons or tabs, but is "
            f"{shown(line_of_names[0])}"
        )
    for line, cells in rows:
        if len(cells) > len(names) and any(cells[len(names) :]):
            raise UserError(
                f"{source}: row {line} has {counted(len(cells), 'cell')}, and the first line names {len(names)}; name "
                "all columns there, and quote cells that contain the separator"
            )
    whole = [[*cells, *[""] * (len(names) - len(cells))] for _, cells in rows]
    columns = {name: [cells[i] for cells in whole] for i, name in enumerate(names)}
    found = Frame(source, columns, [f"row {line}" for line, _ in rows])
    return _checked(found if separator == "," else _with_points(found))


def _separator(text: str) -> tuple[str, str, int]:
    """The separator of a CSV, the text without Excel's line `sep=;`, and the number of lines taken off."""
    head, _, rest = text.partition("\n")
    if re.fullmatch(r"sep=.\r?", head):
        return head[4], rest, 1
    header = next((line for line in text.splitlines() if line.strip()), "")
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(SEPARATORS, key=unquoted.count), text, 0


def _with_points(frame: Frame) -> Frame:
    """The frame with points for decimal commas, in columns that have no other numbers than such and whole ones."""
    columns, changed = dict(frame.columns), []
    for name, cells in frame.columns.items():
        filled = [cell for cell in cells if cell]
        commas = [cell for cell in filled if DECIMAL_COMMA.fullmatch(cell)]
        if commas and all(DECIMAL_COMMA.fullmatch(cell) or WHOLE.fullmatch(cell) for cell in filled):
            columns[name] = [cell.replace(",", ".") for cell in cells]
            changed.append(name)
    said = (f"Decimal commas are read as points in {', '.join(changed)}.",) if changed else ()
    return Frame(frame.source, columns, frame.rows, said)


def _checked(frame: Frame) -> Frame:
    """The frame, without columns that have no name and are empty or number the rows. Raises UserError where nothing is
    left."""
    columns = {
        name: cells for name, cells in frame.columns.items() if not (UNNAMED.fullmatch(name) and _numbers_rows(cells))
    }
    if not frame.rows or not columns:
        raise UserError(f"{frame.source} has no rows; give a line of column names and a line for each run")
    return Frame(frame.source, columns, frame.rows, frame.remarks)


def _numbers_rows(cells: list[Any]) -> bool:
    """Whether cells are whole numbers, each once, or none: pandas writes its index so, also of a part of a frame."""
    filled = [str(cell) for cell in cells if cell not in (None, "")]
    return all(map(WHOLE.fullmatch, filled)) and len(set(filled)) == len(filled)
