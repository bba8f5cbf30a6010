"""A table on the screen loses nothing at any width; in a pipe it is plain."""

import dataclasses
import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from ablations.table.shape import Column, Row, Table
from ablations.table.text import to_markdown, to_plain
from orchestrator.state.outcomes import hardware
from orchestrator.terminal.table import show

NOTE = "not finished: TransKD-EA seed 5: loss/pea_ea is nan at step 1200 [see its folder]"
HEADINGS = (
    *("arm", "n", "mIoU", "vs", "difference [interval]", "verdict"),
    *("best", "published", "reproduced", "params (M)", "GMACs (paper)"),
)
CELLS = (
    ("teacher", "1", "76.4", "-", "", "", "76.5", "76.49", "yes", "27.36", "113.84"),
    ("student alone", "8", "55.1 ± 0.6", "-", "", "", "55.8", "55.86", "recipe differs", "3.72", "13.67"),
    (
        *("TransKD-GL", "8", "68.0 ± 0.5", "TransKD-Base", "+0.1 [-0.3, 0.4]", "undecided"),
        *("68.2", "68.87", "no", "3.72", "13.67"),
    ),
    ("", "", "", "student alone", "+12.9 [12.3, 13.4]", "better", "", "", "", "", ""),
    (
        *("TransKD-EA", "7/8", "68.1 ± 0.4", "TransKD-Base", "-0.2 [-0.5, -0.1]", "worse"),
        *("68.3", "68.98", "yes", "5.5", "17.84"),
    ),
)


@pytest.fixture
def table():
    left = {"arm", "vs", "verdict", "reproduced"}
    columns = tuple(Column(heading, right=heading not in left) for heading in HEADINGS)
    values = [{"arm": cells[0], "mean": 1 / (3 + i)} for i, cells in enumerate(CELLS)]
    values[0]["role"] = "teacher"
    rows = tuple(Row(cells, raw) for cells, raw in zip(CELLS, values, strict=True))
    return Table("demo   val mIoU (full protocol), last epoch, 8 seeds", columns, rows, (NOTE,))


def printed(table, width, terminal=True):
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system="standard" if terminal else None)
    show(table, console)
    return out.getvalue()


def on_screen(table, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, record=True)
    show(table, console)
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40])
def test_no_cell_is_cut_and_no_line_is_too_long(table, width):
    lines = on_screen(table, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for cell in (*HEADINGS, *(cell for cells in CELLS for cell in cells if cell)):
        assert cell in text
    assert "…" not in text
    assert "".join(NOTE.split()) in "".join(text.split())


def test_a_wide_screen_has_one_block(table):
    lines = on_screen(table, 140)
    assert [line.split()[0] for line in lines if line] == [
        *("demo", "arm", "─" * len(lines[2]), "teacher", "student", "TransKD-GL", "student", "TransKD-EA", "not")
    ]


def test_a_narrow_screen_keeps_difference_and_verdict_together(table):
    lines = on_screen(table, 80)
    (row,) = (line for line in lines if "TransKD-EA" in line and "-0.2 [-0.5, -0.1]" in line)
    assert row.endswith("worse")
    (row,) = (line for line in lines if "TransKD-EA" in line and "68.98" in line)
    assert row.split()[1:] == ["68.3", "68.98", "yes", "5.5", "17.84"]


def test_a_verdict_keeps_together_with_the_reference_that_it_is_against(table):
    headings = [line.split() for line in on_screen(table, 70) if line.startswith("arm")]
    assert headings[:2] == [["arm", "n", "mIoU"], ["arm", "vs", "difference", "[interval]", "verdict"]]


def test_columns_are_aligned_below_names_of_any_letters():
    rows = tuple(Row((name, "1"), {}) for name in ("\u57fa\u7ebf", "base", "m\u00e9thode", "a\u0302"))
    lines = to_plain(Table("names", (Column("arm"), Column("n", right=True)), rows, ())).splitlines()[1:]
    assert [cell_len(line) for line in lines] == [len("m\u00e9thode   1")] * 5


def test_what_is_published_and_what_it_costs_keeps_together_where_the_verdicts_leave_room(table):
    first, second = (line for line in on_screen(table, 110) if line.startswith("arm"))
    assert first.split()[-1] == "verdict"
    assert second.split() == ["arm", *HEADINGS[6:8], "reproduced", "params", "(M)", "GMACs", "(paper)"]


def test_reproductions_are_coloured_on_a_terminal(table):
    text = printed(table, 140)
    assert "\x1b[32myes" in text
    assert "\x1b[31mno" in text
    assert "\x1b[33mrecipe differs" in text


def test_verdicts_are_coloured_on_a_terminal(table):
    text = printed(table, 120)
    assert "\x1b[32mbetter" in text
    assert "\x1b[31mworse" in text
    assert "\x1b[33m7/8" in text


def test_a_pipe_gets_plain_lines_whatever_its_width(table):
    text = printed(table, 80, terminal=False)
    assert "\x1b" not in text
    assert "─" not in text
    lines = text.splitlines()
    assert len(lines) == 1 + 1 + len(CELLS) + 1
    assert lines[-1] == f" {NOTE}"
    assert lines[-2].split() == " ".join(CELLS[-1]).split()


def test_hardware_is_said_as_a_table_has_room_for():
    assert hardware({"device": "cpu", "processor": "x86_64", "threads": 1}) == "cpu (x86_64, 1 thread)"
    assert hardware({"device": "cuda:1", "device_name": "a GPU", "processor": "x86_64"}) == "cuda (a GPU)"
    assert hardware({"device": "cuda", "processor": "x86_64"}) == "cuda"


def test_tables_under_the_first_are_printed_below_it(table):
    columns = (Column("effect"), Column("n", right=True))
    under = Table("effects   of the factors", columns, (Row(("csf × pea", "8"), {}),), ("a note of theirs",))
    both = dataclasses.replace(table, more=(under,))
    for text in (printed(both, 120), printed(both, 120, terminal=False), to_markdown(both)):
        places = [text.index(part) for part in (CELLS[-1][0], "effects", "csf × pea", "a note of theirs")]
        assert places == sorted(places)
