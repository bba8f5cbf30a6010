"""Tables for papers: what is set bold, what TeX must not read, and that it compiles."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from ablations.table.latex import escape, to_latex
from ablations.table.marks import mark_note, marks
from ablations.table.shape import Column, Row, Table
from ablations.table.text import to_markdown, to_plain

COLUMNS = (
    Column("arm"),
    Column("mIoU", right=True, marked=True),
    Column("vs"),
    Column("difference [interval]", right=True),
    Column("verdict"),
)


def table(*rows, notes=(), more=()):
    """Rows are (arm, mean, reference, verdict); an arm that stands again is the next contrast of the one above."""
    made, seen = [], set()
    for arm, mean, reference, verdict in rows:
        values = {"arm": arm, "reference": reference, "verdict": verdict}
        if arm in seen:
            cells = ("", "", reference, "+1.0 [-0.3, 2.0]", verdict)
            values["again"] = True
        else:
            cells = (arm, f"{mean:.1f} ± 0.5", reference, "-0.2 [-0.5, -0.1]" if verdict else "", verdict)
            values |= {"role": "teacher" if arm == "teacher" else "arm", "mean": mean}
        seen.add(arm)
        made.append(Row(cells, values))
    return Table("my_study   val mIoU, 5 %", COLUMNS, tuple(made), tuple(notes), tuple(more))


CHAIN = (
    ("teacher", 80, "-", ""),
    ("alone", 50, "-", ""),
    ("Base", 60, "alone", "better"),
    ("GL", 65, "Base", "better"),
)


def test_a_chain_of_verdicts_orders_the_arms():
    assert marks(table(*CHAIN)) == {3: "best", 2: "second"}


@pytest.mark.parametrize("verdict", ["undecided", "equivalent", "not yet", ""])
def test_the_highest_mean_alone_earns_no_mark(verdict):
    assert marks(table(*CHAIN[:3], ("GL", 65, "Base", verdict))) == {}


def test_the_note_says_what_the_marks_mean():
    assert "underlined" in mark_note(table(*CHAIN), "bold", "underlined")
    assert "none is better than all others" in mark_note(
        table(*CHAIN[:3], ("GL", 65, "Base", "undecided")), "bold", "underlined"
    )
    assert mark_note(table(("alone", 50, "-", "")), "bold", "underlined") == ""


def test_golden():
    effects = Table(
        "effects   of two factors", (Column("effect"), Column("n", right=True)), (Row(("a × b", "8"), {}),), ()
    )
    assert to_latex(table(*CHAIN, notes=["100 % of what is < 3_000"], more=[effects])) == (
        r"""% \usepackage{booktabs,graphicx}
\begin{table}[t]
\centering
\caption{my\_study: val mIoU, 5 \%}
\label{tab:my-study}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
\begin{tabular}{@{}lrlrl@{}}
\toprule
arm & mIoU & vs & difference [interval] & verdict \\
\midrule
teacher & 80.0 $\pm$ 0.5 & - &  &  \\
\midrule
alone & 50.0 $\pm$ 0.5 & - &  &  \\
Base & \underline{60.0 $\pm$ 0.5} & alone & $-$0.2 [$-$0.5, $-$0.1] & better \\
GL & \textbf{65.0 $\pm$ 0.5} & Base & $-$0.2 [$-$0.5, $-$0.1] & better \\
\bottomrule
\end{tabular}}
\par\smallskip\footnotesize\raggedright
100 \% of what is \textless{} 3\_000.\\
bold: better than every other arm, directly or via others; underlined: better than all but that one.\\
\end{table}

\begin{table}[t]
\centering
\caption{effects: of two factors}
\label{tab:effects}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
\begin{tabular}{@{}lr@{}}
\toprule
effect & n \\
\midrule
a $\times$ b & 8 \\
\bottomrule
\end{tabular}}
\end{table}
"""
    )


def test_what_tex_reads_as_commands_is_text():
    assert escape(r"50% & \x_{1}^2 ~ #$") == (
        r"50\% \& \textbackslash{}x\_\{1\}\textasciicircum{}2 \textasciitilde{} \#\$"
    )


@pytest.mark.latex
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_it_compiles(tmp_path):
    odd = r"Ünlü \ {x} #1 50% a_b ^ ~ & $ < > | ± × − ≤ ≥ → … * † ‡"
    rows = (
        ("alone", 50, "-", ""),
        (odd, 60, "alone", "better"),
        *((f"{odd} {i}", 6, "alone", "undecided") for i in range(4)),
    )
    (tmp_path / "table.tex").write_text(to_latex(table(*rows, notes=[odd], more=[table(*CHAIN)])))
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\\input{table}\\end{document}"
    )
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout
    assert "Overfull" not in done.stdout, "wider than the line"


STRANGE = (
    "[none]",
    " [lr] doubled",
    "*",
    "[0.5ex]",
    "a\x1b[31m\nb",
    "x | y",
    "a & b",
    "-- \\",
    "~^<>",
    "#1",
    "{",
    "$x$",
)
"""Names that a format could take for its own marks."""


def strange():
    return table(*((name, 70 + place, "-", "") for place, name in enumerate(STRANGE)), notes=STRANGE)


def test_no_cell_begins_an_argument():
    """`\\\\` and `\\midrule` read a bracket or a star after them, over line ends, as their argument."""
    lines = [line.strip() for line in to_latex(strange()).splitlines()]
    assert not [line for line in lines[1:] if line.startswith(("[", "*"))]
    assert "{[}none]" in escape("[none]") and "{[}" in escape("  [x]")


def test_no_format_gets_a_control_character():
    for text in (to_latex(strange()), to_plain(strange()), to_markdown(strange())):
        assert "\x1b" not in text
        assert len([line for line in text.splitlines() if "x1b" in line]) == 2  # a row and a note, not cut in two


def test_markdown_shows_strange_names_as_they_are():
    rows = [line for line in to_markdown(strange()).splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == len(COLUMNS) + 1 for row in rows)
    assert "- \\#1" in to_markdown(strange()) and "\\$x\\$" in to_markdown(strange())


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_strange_names_compile(tmp_path):
    (tmp_path / "table.tex").write_text(to_latex(strange()), encoding="utf-8")
    frame = "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\\input{table}\\end{document}"
    (tmp_path / "main.tex").write_text(frame, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "main.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-800:]
