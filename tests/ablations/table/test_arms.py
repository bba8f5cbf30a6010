"""From outcomes to rows and notes: what a reader is shown, and is not spared."""

from __future__ import annotations

import math

import pytest

from ablations.study.plan import expand
from ablations.table.arms import Outcome, build_table, number
from ablations.table.lacking import ranged
from ablations.table.marks import mark_note
from ablations.table.text import to_markdown, to_plain
from tests.ablations.table.finished_runs import ARMS, column, finished, finished_alike, scattered, score


def test_the_table_of_a_finished_study(study):
    written = study(ARMS)
    runs = expand(written)
    table = build_table(written, runs, finished(runs))
    assert to_plain(table) == (
        "written   val mIoU (full protocol), last epoch, 8 seeds, one teacher (76.4), family-wise 5 %\n"
        "arm                      n         mIoU   vs      difference [interval]   verdict     seeds lacking\n"
        "teacher segformer_mini   1         76.4   -\n"
        "alone                    8   55.2 ± 0.2   -\n"
        "Base                     8   60.2 ± 0.2   alone         +5.0 [5.0, 5.0]   better\n"
        "Other                    8   60.3 ± 0.3   Base          +0.1 [0.0, 0.2]   undecided         6 to 15\n"
        " unequal: arms differ in more than what is compared\n"
        " [interval]: the differences that the test does not reject, at 5 % family-wise\n"
        " next: a new study with more seeds; none may be added to this one; "
        "transkd explain written explains the table\n"
    )
    for told in (
        "8 seeds, 2 contrasts: the smallest adjusted p is 0.016, so a difference can be decided at 5 %.",
        "The results are conditional on one teacher: another may order the arms differently.",
        "Unequal: optim.epochs is 12 in Other and 9 in Base, which could explain their difference.",
        "Equivalence of Other and Base within ±0.1 points would take 7 to 16 more seeds.",
    ):
        assert told in table.explained


@pytest.mark.parametrize(
    ("rest", "ended", "expected"),
    [
        (ARMS, {}, "next: transkd run written trains the 25 runs left;"),
        (ARMS.replace("seeds: 8", "seeds: 3"), None, "next: a new study with at least 7 seeds can decide;"),
        (ARMS + "margin: 1.0\n", None, "next: nothing is left to do;"),
    ],
)
def test_one_line_says_what_to_do_next(study, rest, ended, expected):
    written = study(rest)
    runs = expand(written)
    table = build_table(written, runs, finished(runs) if ended is None else ended)
    assert table.next_step == f"{expected} transkd explain written explains the table"
    assert to_plain(table).endswith(f" {table.next_step}\n")


def test_however_much_there_is_to_say_three_short_notes_are_shown_and_the_rest_is_explained(study):
    arms = ", ".join(f"{arm}: {{optim.lr: {number}.0e-4}}" for number, arm in enumerate("ABCDEFG", 2))
    variants = f"variants: {{alone: {{distill: {{}}, optim.epochs: 7}}, Base: {{}}, {arms}}}"
    written = study(f"{variants}\nseeds: 3\nmargin: 0.1\n{PUBLISHED.replace('PROTOCOL', 'full')}")
    runs = expand(written)
    outcomes = scattered(runs)
    outcomes[runs[-1].key] = Outcome("failed", {}, "loss/pea is nan at step 1200")
    table = build_table(written, runs, outcomes)
    assert len([*table.notes, mark_note(table, "bold", "underlined")]) == 3
    assert max(map(len, table.notes)) < 90
    assert table.next_step == (
        "next: transkd run written --retry-failed tries the 1 failed run again; "
        "transkd explain written explains the table"
    )
    assert all(text[0].isupper() or text.startswith(("alone", "teacher")) for text in table.explained)
    assert all(text.endswith(".") for text in table.explained)


def test_seeds_lacking_are_a_column(study):
    arms = ", ".join(f"{arm}: {{optim.lr: {number}.0e-4}}" for number, arm in enumerate("ABCDEFG", 2))
    written = study(f"variants: {{alone: {{distill: {{}}}}, {arms}}}\nseeds: 3")
    runs = expand(written)
    table = build_table(written, runs, scattered(runs))
    assert all(column(table, "seeds lacking")[2:])
    row = table.rows[2].values
    assert column(table, "seeds lacking")[2] == ranged(row["lacking_least"], row["lacking_most"])
    assert row["lacking_for"] == pytest.approx(abs(row["difference"]))


def test_raw_numbers_are_kept_beside_the_words(study):
    written = study(ARMS)
    runs = expand(written)
    row = build_table(written, runs, finished(runs)).rows[2].values
    assert (row["arm"], row["n"], row["seeds"], row["reference"], row["pairs"]) == ("Base", 8, 8, "alone", 8)
    assert row["mean"] == pytest.approx(60.175)
    assert row["difference"] == pytest.approx(5.0)
    assert row["p"] == pytest.approx(2 * 2 / 256)


def test_a_failed_seed_is_a_hole_with_its_reason(study):
    written = study(ARMS)
    runs = expand(written)
    outcomes = finished(runs)
    hurt = next(run for run in runs if (run.arm, run.seed) == ("Base", 5))
    outcomes[hurt.key] = Outcome("failed", {"val/miou": 1.0}, "loss/pea is nan at step 1200")
    table = build_table(written, runs, outcomes)
    assert column(table, "n") == ["1", "8", "7/8", "8"]
    assert table.rows[2].values["mean"] == pytest.approx(60.175 + (60.175 - score(hurt)) / 7)
    assert table.rows[2].values["pairs"] == table.rows[3].values["pairs"] == 7
    assert table.explained[0] == "Base seed 5 did not finish: loss/pea is nan at step 1200."
    assert "A difference is over the seeds that both arms have, a mean over all seeds of its arm." in table.explained
    assert column(table, "verdict")[2] == "better"


def test_no_verdict_while_seeds_are_to_come(study):
    written = study(ARMS)
    runs = expand(written)
    outcomes = finished(runs)
    waiting = [run for run in runs if run.arm == "Other" and run.seed > 5]
    del outcomes[waiting[0].key]
    outcomes[waiting[1].key] = Outcome("running", {"val/miou": 99.0})
    table = build_table(written, runs, outcomes)
    assert column(table, "verdict") == ["", "", "better", "not yet"]
    assert column(table, "n") == ["1", "8", "8", "6/8"]
    assert "Other seed 6 did not finish: not run yet." in table.explained
    assert "Other seed 7 did not finish: running." in table.explained
    assert any(note.startswith("A verdict is not yet computed where") for note in table.explained)


def test_a_study_that_has_not_begun_is_a_table_without_numbers(study):
    written = study(ARMS)
    table = build_table(written, expand(written), {})
    assert column(table, "n") == ["0/1", "0/8", "0/8", "0/8"]
    assert column(table, "mIoU") == ["-"] * 4
    assert "alone seeds 0, 1, 2, 3, 4, 5, 6, 7 did not finish: not run yet." in table.explained
    assert "one teacher, " in table.title
    assert "nan" not in to_plain(table)


def test_a_run_without_the_metric_is_not_a_score(study):
    written = study(ARMS)
    runs = expand(written)
    outcomes = finished(runs)
    outcomes[runs[1].key] = Outcome("finished", {"val/miou": math.nan})
    table = build_table(written, runs, outcomes)
    assert column(table, "n")[1] == "7/8"
    assert table.explained[0] == "alone seed 0 finished without a score: val/miou is missing or not finite."


def test_a_design_that_cannot_decide_says_so(study):
    written = study(ARMS.replace("seeds: 8", "seeds: 3"))
    runs = expand(written)
    table = build_table(written, runs, finished(runs))
    assert column(table, "verdict")[2:] == ["undecided", "undecided"]
    assert any(note.startswith("This design cannot decide a difference: 3 seeds") for note in table.explained)


def test_a_margin_makes_equivalence_a_verdict(study):
    written = study(ARMS + "margin: 1.0\n")
    runs = expand(written)
    table = build_table(written, runs, finished(runs))
    assert column(table, "verdict")[2:] == ["better", "equivalent"]
    assert any(
        note.startswith("Equivalent means that the difference lies within ±1 points") for note in table.explained
    )


PUBLISHED = """
published:
  {source: a paper, protocol: PROTOCOL, recipe: {optim.epochs: 1000, optim.lr: 1.0e-3}, teacher: 76.49, Base: 68.6}
"""


def test_published_numbers_stand_beside_ours_with_what_differs(study):
    written = study(ARMS + PUBLISHED.replace("PROTOCOL", "full"))
    runs = expand(written)
    table = build_table(written, runs, finished(runs))
    assert column(table, "published") == ["76.49", "", "68.60", ""]
    assert column(table, "reproduced") == ["recipe differs", "", "recipe differs", ""]
    assert column(table, "best") == ["77.4", "56.2", "61.2", "61.3"]
    assert any(note.startswith("Recipe differs") and "optim.epochs 9 (1000)" in note for note in table.explained)


def test_protocols_are_never_mixed(study):
    written = study(ARMS + PUBLISHED.replace("PROTOCOL", "paper"))
    runs = expand(written)
    table = build_table(written, runs, finished(runs))
    assert "published" not in [column.heading for column in table.columns]
    assert "Published numbers are left out: they are of the paper protocol, and this table of full." in table.explained
    both = "}\n  eval: {protocols: [full, paper]"
    named = study(ARMS + PUBLISHED.replace("PROTOCOL", "paper") + "metric: val/paper/miou\n", data=both)
    runs = expand(named)
    outcomes = {run.key: Outcome("finished", {"val/paper/miou": score(run)}) for run in runs}
    assert column(build_table(named, runs, outcomes), "published")[0] == "76.49"


def test_conditions_stand_beside_the_whole(study):
    written = study(ARMS.replace("Base: {}", "Base: {data.name: acdc}"), data=", name: acdc")
    runs = expand(written)
    outcomes = finished(runs)
    for run in runs:
        outcomes[run.key].metrics.update({"val/fog/miou": 70.0 + run.seed, "val/night/miou": 40.0})
    table = build_table(written, runs, outcomes)
    headings = [column.heading for column in table.columns]
    assert [heading for heading in headings if heading in ("fog", "night")] == ["fog", "night"]
    assert column(table, "fog")[1] == "73.5"
    assert table.rows[1].values["night"] == 40.0


def test_an_arm_in_two_contrasts_has_a_line_for_each(study):
    written = study(ARMS.replace("[Other, Base]]", "[Other, Base], [Other, alone]]"))
    runs = expand(written)
    table = build_table(written, runs, finished(runs))
    assert [row.cells[0] for row in table.rows][-2:] == ["Other", ""]
    assert column(table, "vs")[-2:] == ["Base", "alone"]
    assert column(table, "mIoU")[-1] == ""


def test_two_teachers_of_one_network_have_a_row_each(study):
    written = study("variants: {a: {}, b: {teacher.train.epochs: 6}, c: {teacher.train.seed: 1, distill.pea: null}}")
    runs = expand(written)
    table = build_table(written, runs, finished_alike(runs))
    assert column(table, "arm") == [
        "teacher segformer_mini, epochs=3, seed=0",
        "teacher segformer_mini, epochs=6, seed=0",
        "teacher segformer_mini, epochs=3, seed=1",
        "a",
        "b",
        "c",
    ]
    assert column(table, "n") == ["1"] * 6


def test_several_teachers_are_no_condition(study):
    written = study("factors: {teacher.train.seed: [0, 1], distill.csf.weight: [1.0, 2.0]}")
    runs = expand(written)
    table = build_table(written, runs, {})
    assert "2 teachers" in table.title
    assert not any("conditional on one teacher" in note for note in table.explained)


def test_a_teacher_from_a_checkpoint_has_its_stated_miou(study):
    written = study("variants: {a: {teacher: {checkpoint: t.pt, miou: 76.49}}}")
    table = build_table(written, expand(written), {})
    assert "one teacher (76.5)" in table.title
    assert len(table.rows) == 1


def test_left_out_grid_points_are_counted(study):
    written = study(
        "factors: {distill.csf: [null, {}], distill.pea: [null, {}]}\nexcludes: [[distill.csf, distill.pea]]"
    )
    assert any(note.endswith("excludes leave out: 1.") for note in build_table(written, expand(written), {}).explained)


@pytest.mark.parametrize(
    ("value", "shown"), [(-0.04, "0.0"), (0.05, "0.1"), (None, "-"), (math.nan, "-"), (-1.26, "-1.3"), (100.0, "100.0")]
)
def test_numbers_as_shown(value, shown):
    assert number(value) == shown


def test_markdown_is_a_table_whatever_an_arm_is_called(study):
    written = study('variants: {"a|b*": {distill: {}}, Base: {}}')
    table = build_table(written, expand(written), {})
    text = to_markdown(table)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(table.rows)
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert "a\\|b\\*" in text


def test_the_test_split_has_a_column_of_its_own_and_decides_nothing(study):
    plain = study(ARMS)
    tested = study(ARMS, more="eval: {splits: [val, test]}")
    outcomes, shown = {}, {}
    for written in (plain, tested):
        runs = expand(written)
        outcomes = finished(runs)
        if written is tested:
            for run in runs:  # on test, the order of the arms is the other way round
                outcomes[run.key].metrics["test/miou"] = 100.0 - outcomes[run.key].metrics["val/miou"]
        shown[written.name, written is tested] = build_table(written, runs, outcomes)
    without, with_ = shown.values()
    headings = [column.heading for column in with_.columns]
    assert headings[headings.index("verdict") + 1] == "test mIoU"
    assert column(with_, "test mIoU") == ["23.6", "44.8 ± 0.2", "39.8 ± 0.2", "39.7 ± 0.3"]
    at = headings.index("test mIoU")
    assert [row.cells[:at] + row.cells[at + 1 :] for row in with_.rows] == [row.cells for row in without.rows]
    assert any("no verdict, search or number of seeds depends on it" in note for note in with_.explained)
    assert not any("of the test split" in note for note in without.explained)
