"""From outcomes to rows and notes: what a reader is shown, and is not spared."""

from __future__ import annotations

import math

import pytest

from ablations.study.plan import expand
from ablations.study.trial import Trial
from ablations.table.arms import Outcome, build_table, number
from ablations.table.costs import ALL_PRODUCTS
from ablations.table.lacking import ranged
from ablations.table.marks import mark_note
from ablations.table.text import to_markdown, to_plain
from ablations.table.trials import search_table

ARMS = """
variants: {alone: {distill: {}}, Base: {}, Other: {optim.epochs: 12}}
seeds: 8
contrasts: [[Base, alone], [Other, Base]]
"""
MEANS = {"teacher segformer_mini": 76.4, "alone": 55.0, "Base": 60.0, "Other": 60.1}


def _score(run) -> float:
    wobble = (-1) ** run.seed * (0.3 if run.arm == "Other" else 0.2) + 0.05 * run.seed
    return MEANS[run.arm] + wobble * (run.role == "arm")


def _finished(runs) -> dict[str, Outcome]:
    return {
        run.key: Outcome("finished", {"val/miou": _score(run)}, best={"val/miou": _score(run) + 1.0}) for run in runs
    }


def _scattered(runs) -> dict[str, Outcome]:
    return {run.key: Outcome("finished", {"val/miou": 50.0 + math.sin(number**2)}) for number, run in enumerate(runs)}


def _finished_alike(runs) -> dict[str, Outcome]:
    return {run.key: Outcome("finished", {"val/miou": 50.0}) for run in runs}


def _column(table, heading: str) -> list[str]:
    index = [column.heading for column in table.columns].index(heading)
    return [row.cells[index] for row in table.rows]


def test_the_table_of_a_finished_study(study):
    written = study(ARMS)
    runs = expand(written)
    table = build_table(written, runs, _finished(runs))
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
    table = build_table(written, runs, _finished(runs) if ended is None else ended)
    assert table.next_step == f"{expected} transkd explain written explains the table"
    assert to_plain(table).endswith(f" {table.next_step}\n")


def test_however_much_there_is_to_say_three_short_notes_are_shown_and_the_rest_is_explained(study):
    arms = ", ".join(f"{arm}: {{optim.lr: {number}.0e-4}}" for number, arm in enumerate("ABCDEFG", 2))
    variants = f"variants: {{alone: {{distill: {{}}, optim.epochs: 7}}, Base: {{}}, {arms}}}"
    written = study(f"{variants}\nseeds: 3\nmargin: 0.1\n{PUBLISHED.replace('PROTOCOL', 'full')}")
    runs = expand(written)
    outcomes = _scattered(runs)
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
    table = build_table(written, runs, _scattered(runs))
    assert all(_column(table, "seeds lacking")[2:])
    row = table.rows[2].values
    assert _column(table, "seeds lacking")[2] == ranged(row["lacking_least"], row["lacking_most"])
    assert row["lacking_for"] == pytest.approx(abs(row["difference"]))


def test_raw_numbers_are_kept_beside_the_words(study):
    written = study(ARMS)
    runs = expand(written)
    row = build_table(written, runs, _finished(runs)).rows[2].values
    assert (row["arm"], row["n"], row["seeds"], row["reference"], row["pairs"]) == ("Base", 8, 8, "alone", 8)
    assert row["mean"] == pytest.approx(60.175)
    assert row["difference"] == pytest.approx(5.0)
    assert row["p"] == pytest.approx(2 * 2 / 256)


def test_a_failed_seed_is_a_hole_with_its_reason(study):
    written = study(ARMS)
    runs = expand(written)
    outcomes = _finished(runs)
    hurt = next(run for run in runs if (run.arm, run.seed) == ("Base", 5))
    outcomes[hurt.key] = Outcome("failed", {"val/miou": 1.0}, "loss/pea is nan at step 1200")
    table = build_table(written, runs, outcomes)
    assert _column(table, "n") == ["1", "8", "7/8", "8"]
    assert table.rows[2].values["mean"] == pytest.approx(60.175 + (60.175 - _score(hurt)) / 7)
    assert table.rows[2].values["pairs"] == table.rows[3].values["pairs"] == 7
    assert table.explained[0] == "Base seed 5 did not finish: loss/pea is nan at step 1200."
    assert "A difference is over the seeds that both arms have, a mean over all seeds of its arm." in table.explained
    assert _column(table, "verdict")[2] == "better"


def test_no_verdict_while_seeds_are_to_come(study):
    written = study(ARMS)
    runs = expand(written)
    outcomes = _finished(runs)
    waiting = [run for run in runs if run.arm == "Other" and run.seed > 5]
    del outcomes[waiting[0].key]
    outcomes[waiting[1].key] = Outcome("running", {"val/miou": 99.0})
    table = build_table(written, runs, outcomes)
    assert _column(table, "verdict") == ["", "", "better", "not yet"]
    assert _column(table, "n") == ["1", "8", "8", "6/8"]
    assert "Other seed 6 did not finish: not run yet." in table.explained
    assert "Other seed 7 did not finish: running." in table.explained
    assert any(note.startswith("A verdict is not yet computed where") for note in table.explained)


def test_a_study_that_has_not_begun_is_a_table_without_numbers(study):
    written = study(ARMS)
    table = build_table(written, expand(written), {})
    assert _column(table, "n") == ["0/1", "0/8", "0/8", "0/8"]
    assert _column(table, "mIoU") == ["-"] * 4
    assert "alone seeds 0, 1, 2, 3, 4, 5, 6, 7 did not finish: not run yet." in table.explained
    assert "one teacher, " in table.title
    assert "nan" not in to_plain(table)


def test_a_run_without_the_metric_is_not_a_score(study):
    written = study(ARMS)
    runs = expand(written)
    outcomes = _finished(runs)
    outcomes[runs[1].key] = Outcome("finished", {"val/miou": math.nan})
    table = build_table(written, runs, outcomes)
    assert _column(table, "n")[1] == "7/8"
    assert table.explained[0] == "alone seed 0 finished without a score: val/miou is missing or not finite."


def test_a_design_that_cannot_decide_says_so(study):
    written = study(ARMS.replace("seeds: 8", "seeds: 3"))
    runs = expand(written)
    table = build_table(written, runs, _finished(runs))
    assert _column(table, "verdict")[2:] == ["undecided", "undecided"]
    assert any(note.startswith("This design cannot decide a difference: 3 seeds") for note in table.explained)


def test_a_margin_makes_equivalence_a_verdict(study):
    written = study(ARMS + "margin: 1.0\n")
    runs = expand(written)
    table = build_table(written, runs, _finished(runs))
    assert _column(table, "verdict")[2:] == ["better", "equivalent"]
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
    table = build_table(written, runs, _finished(runs))
    assert _column(table, "published") == ["76.49", "", "68.60", ""]
    assert _column(table, "reproduced") == ["recipe differs", "", "recipe differs", ""]
    assert _column(table, "best") == ["77.4", "56.2", "61.2", "61.3"]
    assert any(note.startswith("Recipe differs") and "optim.epochs 9 (1000)" in note for note in table.explained)


def test_protocols_are_never_mixed(study):
    written = study(ARMS + PUBLISHED.replace("PROTOCOL", "paper"))
    runs = expand(written)
    table = build_table(written, runs, _finished(runs))
    assert "published" not in [column.heading for column in table.columns]
    assert "Published numbers are left out: they are of the paper protocol, and this table of full." in table.explained
    both = "}\n  eval: {protocols: [full, paper]"
    named = study(ARMS + PUBLISHED.replace("PROTOCOL", "paper") + "metric: val/paper/miou\n", data=both)
    runs = expand(named)
    outcomes = {run.key: Outcome("finished", {"val/paper/miou": _score(run)}) for run in runs}
    assert _column(build_table(named, runs, outcomes), "published")[0] == "76.49"


NETWORKS = ARMS.replace("optim.epochs: 12", "student.name: segformer_b1")
COST = {"params_m": 3.719284, "gmacs_paper": 13.671, "gmacs": 9.214, "latency_ms": 8.0, "peak_mib": 301.6}


def _costs(runs, **changes) -> dict[str, dict]:
    return {run.key: COST | {"hardware": "cpu (x86_64)"} | changes for run in runs if run.role == "arm"}


def test_costs_say_their_image_convention_and_hardware(study):
    written = study(NETWORKS)
    runs = expand(written)
    table = build_table(written, runs, _finished(runs), _costs(runs))
    assert _column(table, "params (M)") == ["", "3.72", "3.72", "3.72"]
    assert _column(table, "GMACs (paper)") == ["", "13.67", "13.67", "13.67"]
    assert _column(table, "GMACs (all)") == ["", "9.21", "9.21", "9.21"]
    assert _column(table, "ms") == ["", "8.0", "8.0", "8.0"]
    assert _column(table, "MiB") == ["", "302", "302", "302"]
    assert table.explained[-3:] == (
        "GMACs (paper) are of one 96x192 image, by the paper's convention, which does not count attention products.",
        ALL_PRODUCTS,
        "ms and MiB are the median latency and the peak memory of one 96x192 image on cpu (x86_64).",
    )


def test_a_cost_that_two_decimals_would_hide_has_three_digits(study):
    written = study(NETWORKS)
    runs = expand(written)
    small = {key: {**cost, "params_m": 0.015, "gmacs": 0.0024812} for key, cost in _costs(runs).items()}
    table = build_table(written, runs, _finished(runs), small)
    assert set(_column(table, "params (M)")) == {"", "0.01"}
    assert set(_column(table, "GMACs (all)")) == {"", "0.00248"}


def test_latency_is_the_median_of_an_arms_runs(study):
    written = study(NETWORKS)
    runs = expand(written)
    costs = _costs(runs)
    for run in runs:
        if run.arm == "Base":
            costs[run.key]["latency_ms"] = 100.0 if run.seed == 0 else 4.0 + run.seed
    assert build_table(written, runs, _finished(runs), costs).rows[2].values["latency_ms"] == pytest.approx(8.5)


def test_latencies_of_several_machines_are_not_compared(study):
    written = study(NETWORKS)
    runs = expand(written)
    costs = _costs(runs)
    costs[runs[1].key]["hardware"] = "cuda:0 (a GPU)"
    table = build_table(written, runs, _finished(runs), costs)
    assert "ms" not in [column.heading for column in table.columns]
    assert table.explained[-1] == (
        "Latency is left out, as rows were measured on different hardware: cpu (x86_64) and cuda:0 (a GPU)."
    )


def test_a_row_that_was_not_measured_leaves_latency_out_for_all(study):
    written = study(NETWORKS)
    runs = expand(written)
    costs = _costs(runs)
    del costs[runs[1].key]["latency_ms"]
    table = build_table(written, runs, _finished(runs), costs)
    assert "ms" not in [column.heading for column in table.columns]
    assert _column(table, "MiB")[1] == "302"


def test_latency_of_one_network_is_not_compared_with_itself(study):
    written = study(ARMS)
    runs = expand(written)
    costs = _costs(runs)
    costs[runs[1].key]["hardware"] = "cuda:0 (a GPU)"
    table = build_table(written, runs, _finished(runs), costs)
    assert "ms" not in [column.heading for column in table.columns]
    assert table.explained[-1] == ALL_PRODUCTS


def test_conditions_stand_beside_the_whole(study):
    written = study(ARMS.replace("Base: {}", "Base: {data.name: acdc}"), data=", name: acdc")
    runs = expand(written)
    outcomes = _finished(runs)
    for run in runs:
        outcomes[run.key].metrics.update({"val/fog/miou": 70.0 + run.seed, "val/night/miou": 40.0})
    table = build_table(written, runs, outcomes)
    headings = [column.heading for column in table.columns]
    assert [heading for heading in headings if heading in ("fog", "night")] == ["fog", "night"]
    assert _column(table, "fog")[1] == "73.5"
    assert table.rows[1].values["night"] == 40.0


def test_an_arm_in_two_contrasts_has_a_line_for_each(study):
    written = study(ARMS.replace("[Other, Base]]", "[Other, Base], [Other, alone]]"))
    runs = expand(written)
    table = build_table(written, runs, _finished(runs))
    assert [row.cells[0] for row in table.rows][-2:] == ["Other", ""]
    assert _column(table, "vs")[-2:] == ["Base", "alone"]
    assert _column(table, "mIoU")[-1] == ""


def test_two_teachers_of_one_network_have_a_row_each(study):
    written = study("variants: {a: {}, b: {teacher.train.epochs: 6}, c: {teacher.train.seed: 1, distill.pea: null}}")
    runs = expand(written)
    table = build_table(written, runs, _finished_alike(runs))
    assert _column(table, "arm") == [
        "teacher segformer_mini, epochs=3, seed=0",
        "teacher segformer_mini, epochs=6, seed=0",
        "teacher segformer_mini, epochs=3, seed=1",
        "a",
        "b",
        "c",
    ]
    assert _column(table, "n") == ["1"] * 6


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


SEARCH = """
search:
  trials: 6
  space: {distill.csf: {choice: [null, {}]}, distill.csf.weight: {log: [1.0e-2, 10.0]}}
"""


def test_a_search_ranks_finished_trials_before_stopped_ones(study):
    written = study(SEARCH, data=", select: 0.1")
    on = {"distill.csf": "on", "distill.csf.weight": 0.123456}
    trials = [
        Trial(0, {"distill.csf": "off"}, "finished", 9, {"select/miou": 40.0, "val/miou": 39.0}),
        Trial(1, on, "stopped", 3, {"select/miou": 50.0}),
        Trial(2, on, "finished", 9, {"select/miou": 41.0, "val/miou": 38.0}),
        Trial(3, on, "failed", 1, {}, "loss is nan at step 3"),
        Trial(4, on, "finished", 9, {"select/miou": math.nan}),
    ]
    table = search_table(written, trials, top=4)
    assert table.title == "written   5 of 6 trials, tpe, by select/miou"
    assert _column(table, "trial") == ["2", "0", "4", "1"]
    assert _column(table, "csf.weight") == ["0.123", "", "0.123", "0.123"]
    assert _column(table, "val/miou") == ["38.0", "39.0", "-", "-"]
    assert table.rows[0].values["distill.csf.weight"] == 0.123456
    assert table.notes[0] == "3 finished, 1 stopped, 1 failed"
    assert "Failed: trial 3: loss is nan at step 3." in table.explained
    assert to_plain(search_table(written, [])).splitlines()[2] == " no trial yet"


AGAINST = """
search:
  trials: 6
  sampler: nsga2
  against: gmacs
  space: {optim.epochs: {int: [2, 9]}, student.name: {choice: [segformer_tiny, segformer_mini]}}
"""


def test_a_search_against_a_cost_shows_what_its_front_is_made_of(study):
    written = study(AGAINST, data=", select: 0.1")
    trials = [
        Trial(0, {"optim.epochs": 3}, "finished", 3, {"select/miou": 40.0}, costs={"gmacs": 0.0024812}),
        Trial(1, {"optim.epochs": 9}, "finished", 9, {"select/miou": 39.0}, costs={"gmacs": 0.00073}),
        Trial(2, {"optim.epochs": 5}, "failed", 1, {}, "loss is nan at step 3"),
    ]
    table = search_table(written, trials)
    assert _column(table, "gmacs") == ["0.00248", "0.00073", "-"]
    assert _column(table, "optim.epochs") == ["3", "9", "5"]
    assert _column(table, "epochs") == ["3", "9", "1"]


def test_the_test_split_has_a_column_of_its_own_and_decides_nothing(study):
    plain = study(ARMS)
    tested = study(ARMS, more="eval: {splits: [val, test]}")
    outcomes, shown = {}, {}
    for written in (plain, tested):
        runs = expand(written)
        outcomes = _finished(runs)
        if written is tested:
            for run in runs:  # on test, the order of the arms is the other way round
                outcomes[run.key].metrics["test/miou"] = 100.0 - outcomes[run.key].metrics["val/miou"]
        shown[written.name, written is tested] = build_table(written, runs, outcomes)
    without, with_ = shown.values()
    headings = [column.heading for column in with_.columns]
    assert headings[headings.index("verdict") + 1] == "test mIoU"
    assert _column(with_, "test mIoU") == ["23.6", "44.8 ± 0.2", "39.8 ± 0.2", "39.7 ± 0.3"]
    at = headings.index("test mIoU")
    assert [row.cells[:at] + row.cells[at + 1 :] for row in with_.rows] == [row.cells for row in without.rows]
    assert any("no verdict, search or number of seeds depends on it" in note for note in with_.explained)
    assert not any("of the test split" in note for note in without.explained)
