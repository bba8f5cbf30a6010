"""LaTeX: a table for a paper, set with booktabs, as a file to include with \\input."""

from __future__ import annotations

import re
from dataclasses import replace

from ablations.table.marks import mark_note, marks
from ablations.table.shape import Row, Table
from ablations.table.text import below
from trainer.config import printable

PREAMBLE = "% \\usepackage{booktabs,graphicx}"
"""The packages that the including document needs; graphicx scales wide tables down to the line width."""
MARKS = {"best": "\\textbf", "second": "\\underline"}

SPECIAL = {
    "\\": "\\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "±": "$\\pm$",
    "×": "$\\times$",
    "−": "$-$",
    "≤": "$\\leq$",
    "≥": "$\\geq$",
    "→": "$\\rightarrow$",
    "…": "\\ldots{}",
    "*": "\\textsuperscript{*}",
    "†": "\\textsuperscript{\\dag}",
    "‡": "\\textsuperscript{\\ddag}",
}
"""Characters that TeX reads as commands or that its usual fonts lack."""
SIGNED = re.compile(r"(?<![\w.])([-+])(?=\d)")
"""A sign before a number, which is set as a plus or minus in math mode."""


def to_latex(table: Table) -> str:
    """A `table` environment, and one more for each table below; ends with a newline.

    Rows are bold or underlined by `marks`. Characters outside ASCII and `SPECIAL` are kept: pdflatex sets accents, and
    XeLaTeX or LuaLaTeX the rest.
    """
    return "\n".join([PREAMBLE, *map(_environment, (table, *table.more))])


def escape(text: str) -> str:
    """Text with TeX's special characters escaped. A bracket at its start would be an argument of the `\\\\` before."""
    escaped = "".join(SPECIAL.get(character, character) for character in printable(text))
    return re.sub(r"^(\s*)\[", r"\1{[}", escaped)


def _environment(table: Table) -> str:
    name, _, about = table.title.partition("   ")
    label = re.sub(r"[^A-Za-z0-9]+", "-", name)
    caption = f"{escape(name)}: {escape(about)}" if about else escape(name)
    columns = "".join("r" if column.right else "l" for column in table.columns)
    headings = " & ".join(escape(column.heading) for column in table.columns)
    notes = below(replace(table, next_step=""), mark_note(table, "bold", "underlined"))
    return "\n".join(
        [
            "\\begin{table}[t]",
            "\\centering",
            f"\\caption{{{caption}}}",
            f"\\label{{tab:{label}}}",
            # The natural width if it fits the line, else the line width.
            "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
            f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            "\\toprule",
            f"{headings} \\\\",
            "\\midrule",
            *_rows(table),
            "\\bottomrule",
            "\\end{tabular}}",
            *(
                ["\\par\\smallskip\\footnotesize\\raggedright", *(f"{escape(note)}.\\\\" for note in notes)]
                if notes
                else []
            ),
            "\\end{table}",
            "",
        ]
    )


def _rows(table: Table) -> list[str]:
    """One line for each row; a rule separates teachers from arms."""
    marked, lines = marks(table), []
    for i, row in enumerate(table.rows):
        if i and _is_teacher(table.rows[i - 1]) and not _is_teacher(row):
            lines.append("\\midrule")
        cells = [
            _number(escape(cell)) if column.right else escape(cell)
            for cell, column in zip(row.cells, table.columns, strict=True)
        ]
        if i in marked:
            cells = [
                f"{MARKS[marked[i]]}{{{cell}}}" if column.marked else cell
                for cell, column in zip(cells, table.columns, strict=True)
            ]
        lines.append(" & ".join(cells) + " \\\\")
    return lines


def _is_teacher(row: Row) -> bool:
    return row.values.get("role") == "teacher"


def _number(cell: str) -> str:
    return SIGNED.sub(lambda found: f"${found[1]}$", cell)
