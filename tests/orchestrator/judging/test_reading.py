"""What files and frames are read as: layouts, guesses, rows that are left out, and what is refused."""

from __future__ import annotations

import math
import textwrap

import numpy
import pandas
import pyarrow
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pyarrow import parquet

from orchestrator.judging.frame import frame_of, read_frame
from orchestrator.judging.judged import judged
from orchestrator.judging.scores import Choices
from trainer.config import UserError

LONG = {
    "method": ["base"] * 3 + ["ours"] * 3,
    "seed": [0, 1, 2] * 2,
    "miou": [75.0, 75.9, 75.2, 76.1, 76.9, 76.5],
}
SCORES = {"base": {"0": 75.0, "1": 75.9, "2": 75.2}, "ours": {"0": 76.1, "1": 76.9, "2": 76.5}}
LONG_CSV = "method,seed,miou\n" + "".join(f"{a},{s},{v}\n" for a, s, v in zip(*LONG.values(), strict=True))

WANDB = """\
"Name","State","Runtime","Tags","distill","seed","val/miou","train/miou"
"eager-sun-1","finished","3600","","none","0","75.0","80"
"calm-sea-2","finished","3601","","none","1","75.9","80"
"red-hill-3","finished","3601","","none","2","75.2","80"
"odd-fox-4","crashed","12","","none","3","","80"
"blue-sky-5","finished","3500","","csf","0","76.1","80"
"tall-oak-6","finished","3500","","csf","1","76.9","80"
"dry-well-7","finished","3500","","csf","2","76.5","80"
"""
OPTUNA = """\
,number,value,datetime_start,params_method,params_lr,state
0,0,75.0,2026-01-01,base,0.1,COMPLETE
1,1,75.9,2026-01-01,base,0.2,COMPLETE
2,2,,2026-01-01,ours,0.2,FAIL
3,3,76.1,2026-01-01,ours,0.3,COMPLETE
4,4,76.9,2026-01-01,ours,0.1,COMPLETE
"""


def read(tmp_path, text, name="results.csv", encoding="utf-8", **choices):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text), encoding=encoding)
    return judged("results", read_frame(path), Choices(**choices))


def refused(tmp_path, text, name="results.csv", **choices):
    with pytest.raises(UserError) as refusal:
        read(tmp_path, text, name, **choices)
    said = str(refusal.value)
    assert "\n" not in said and said.isprintable()
    return said


@pytest.mark.parametrize(
    "text",
    [
        LONG_CSV,
        "\ufeff" + LONG_CSV,
        LONG_CSV.replace(",", ";"),
        LONG_CSV.replace(",", "\t"),
        LONG_CSV.replace(",", ";").replace(".", ","),
        "sep=;\n" + LONG_CSV.replace(",", ";").replace(".", ","),
        LONG_CSV.replace("\n", "\r\n") + "\r\n,,\r\n",
        "seed,base,ours\n0,75.0,76.1\n1,75.9,76.9\n2,75.2,76.5\n",
        "arm,seed 0,seed 1,seed 2\nbase,75.0,75.9,75.2\nours,76.1,76.9,76.5\n",
        ",seed 0,seed 1,seed 2\nbase,75.0,75.9,75.2\nours,76.1,76.9,76.5\n",
        "data,method,0,1,2\nroad,base,75.0,75.9,75.2\nroad,ours,76.1,76.9,76.5\n",
        LONG_CSV.replace(",0,", ",0.0,"),
        '"method", "seed", "miou\n"\n' + LONG_CSV.replace("base", '"base"').partition("\n")[2],
    ],
    ids=[
        *("long", "mark", "semicolons", "tabs", "commas", "sep", "windows", "wide", "across", "no name", "pivot"),
        *("seeds with points", "quotes after spaces"),
    ],
)
def test_every_layout_gives_the_same_scores(tmp_path, text):
    found = read(tmp_path, text)
    assert found.measured.scores == SCORES
    assert found.measured.paired and found.measured.pairs == (("ours", "base"),)


@pytest.mark.slow
def test_a_parquet_file_and_a_frame_give_the_same_scores(tmp_path):
    frame = pandas.DataFrame(LONG)
    frame.to_parquet(tmp_path / "results.parquet")
    frame.set_index("method").to_parquet(tmp_path / "indexed.parquet")
    pivots = [frame.pivot(index=index, columns=columns) for index, columns in (("seed", "method"), ("method", "seed"))]
    files = [read_frame(tmp_path / f"{name}.parquet") for name in ("results", "indexed")]
    for source in (*files, frame_of(frame), frame_of(LONG), *(frame_of(pivot["miou"]) for pivot in pivots)):
        found = judged("x", source, Choices()).measured
        assert found.scores == SCORES and found.paired


@pytest.mark.slow
def test_a_parquet_file_may_hold_text_as_bytes_but_no_name_twice(tmp_path):
    path = tmp_path / "results.parquet"
    methods, seeds, scores = LONG.values()
    columns = [pyarrow.array([method.encode() for method in methods]), pyarrow.array(seeds), pyarrow.array(scores)]
    parquet.write_table(pyarrow.table(columns, names=["method ", "seed", "miou\n"]), path)
    assert judged("x", read_frame(path), Choices()).measured.scores == SCORES
    parquet.write_table(pyarrow.table([*columns, columns[2]], names=["method", "seed", "miou", "miou"]), path)
    twice = pandas.DataFrame(LONG).assign(other=1).set_axis(["method", "seed", "miou", "miou"], axis=1)
    for read_it in (lambda: read_frame(path), lambda: frame_of(twice)):
        with pytest.raises(UserError, match="each column needs its own name, but 'miou' stands twice; rename one"):
            read_it()


def test_a_column_that_is_named_for_one_thing_is_not_guessed_to_be_another(tmp_path):
    found = read(tmp_path, LONG_CSV, metric="seed")
    assert found.measured.metric == "seed" and not found.measured.paired


def test_what_is_missing_in_a_frame_of_pandas_is_an_empty_cell():
    frame = pandas.DataFrame(LONG)
    frame.loc[4, "miou"] = math.nan
    found = judged("x", frame_of(frame), Choices())
    assert "Left out, as they have no miou: row 4 (ours, 1)." in found.remarks
    with pytest.raises(UserError, match="row 1: miou must be a finite number, but got nan"):
        judged("x", frame_of(LONG | {"miou": [75.0, math.nan, *LONG["miou"][2:]]}), Choices())


@pytest.mark.parametrize("other", [numpy.ones((3, 2)), pandas.Series([1, 2]), [{"a": 1}], {"a": numpy.ones((2, 2))}])
def test_what_is_no_frame_is_refused_in_one_line(other):
    with pytest.raises(UserError, match=r"a frame has columns by name, .* but got a \w+ of other things;") as refusal:
        frame_of(other)
    assert "\n" not in str(refusal.value)


def test_arms_keep_the_names_that_they_have_in_the_file(tmp_path):
    text = LONG_CSV.replace("base", "1.0").replace("ours", "1.10")
    assert list(read(tmp_path, text, reference="1.0").measured.scores) == ["1.0", "1.10"]


@pytest.mark.parametrize(
    "text",
    [
        LONG_CSV + "lost,0,\nlost,1,\n",
        "state," + LONG_CSV.replace("\n", "\nfinished,", 6) + "failed,lost,0,7.0\nodd,lost,1,7.0\n",
        "seed,base,lost,ours\n0,75.0,,76.1\n1,75.9,,76.9\n2,75.2,,76.5\n",
    ],
    ids=["empty", "unfinished", "wide"],
)
def test_an_arm_that_has_no_score_left_is_named(tmp_path, text):
    found = read(tmp_path, text)
    assert found.measured.scores == SCORES
    assert "Not compared, as they have no score: lost." in found.remarks


@pytest.mark.slow
def test_an_export_of_wandb_is_read_without_the_runs_that_crashed(tmp_path):
    found = read(tmp_path, WANDB, arm="distill", metric="val/miou")
    assert found.measured.scores == {"none": SCORES["base"], "csf": SCORES["ours"]}
    assert "Left out: 1 row whose State is crashed." in found.remarks
    assert found.measured.pairs == (("csf", "none"),)


def test_trials_of_optuna_are_not_paired(tmp_path):
    found = read(tmp_path, OPTUNA)
    assert found.measured.scores == {"base": {"1": 75.0, "2": 75.9}, "ours": {"1": 76.1, "2": 76.9}}
    assert not found.measured.paired
    assert "Left out: 1 row whose state is fail." in found.remarks
    assert any("not paired" in remark for remark in found.remarks)


def test_seeds_that_one_arm_lacks_are_named_and_the_others_compared(tmp_path):
    found = read(tmp_path, LONG_CSV.replace("ours,1,76.9\n", "ours,1,\n"))
    assert "ours lacks seed 1: compared on the seeds of both arms." in found.remarks
    assert "Left out, as they have no miou: row 6 (ours, 1)." in found.remarks
    (row,) = (row for row in found.table.rows if row.values["arm"] == "ours")
    assert row.values["pairs"] == 2 and row.cells[1] == "2/3"


@pytest.mark.slow
def test_arms_without_a_common_seed_are_not_paired(tmp_path):
    found = read(tmp_path, LONG_CSV.replace("ours,", "ours,1"))
    assert not found.measured.paired
    assert any("share no seed" in remark for remark in found.remarks)


def test_seeds_are_in_the_order_of_numbers_and_may_be_words(tmp_path):
    assert read(tmp_path, "seed,a,b\n10,1,2\n9,2,2\nx,3,4\n").measured.seeds == ["9", "10", "x"]


def test_less_is_better_where_it_is_said(tmp_path):
    text = "arm,seed,loss\n" + "".join(f"{a},{s},{v + s / 100}\n" for a, v in (("a", 2), ("b", 1)) for s in range(6))
    verdicts = {
        minimise: read(tmp_path, text, minimise=minimise).table.rows[1].values["verdict"] for minimise in (True, False)
    }
    assert verdicts == {True: "better", False: "worse"}
    assert refused(tmp_path, text) == "loss: by its name less is better; say --minimise, or --maximise if more is"


@pytest.mark.parametrize(
    ("text", "choices", "words"),
    [
        ("", {}, ["is empty"]),
        ("arm,seed,miou\n", {}, ["has no rows"]),
        (LONG_CSV.replace("76.9", "n/a"), {}, ["row 6", "miou must be a finite number", "'n/a'", "write it like 76.3"]),
        (LONG_CSV.replace("76.9", "76.9 %"), {}, ["row 6", "'76.9 %'"]),
        (LONG_CSV.replace("76.9", '"76,9"'), {}, ["row 6", "'76,9'", "76.3"]),
        (LONG_CSV.replace("76.9", "nan"), {}, ["row 6", "'nan'", "diverged"]),
        (LONG_CSV.replace("76.9", "inf"), {}, ["row 6", "'inf'"]),
        (LONG_CSV.replace("ours,1", "ours,0"), {}, ["row 5 and row 6", "arm ours, seed 0", "differ in miou"]),
        (LONG_CSV.replace("ours", "base").replace("base,0,76", "base,5,76"), {}, ["row 3 and row 6", "arm base"]),
        (LONG_CSV.replace("76.9", "1e300"), {}, ["row 6", "'1e300'", "up to 1e+100"]),
        (LONG_CSV.replace("ours", "base\u200b"), {}, ["row 5: arm:", "ZERO WIDTH SPACE", "remove it"]),
        ("method,seed,miou\nbase,0,1\nours,0,2\n", {}, ["each method stands in one row", "several scores", "--arm"]),
        ("seed,base,ours\n0,1,2\n1,2,3\nmean,1.5,2.5\n", {}, ["row 4", "mean is a summary", "remove the row"]),
        (",base,ours\ncount,2,2\nmean,1.5,2.5\n", {}, ["no column is known to hold the arms", "unnamed 1"]),
        ("seed,base,ours,mean\n0,1,2,1.5\n1,2,3,2.5\n", {}, ["taken for an arm, which mean is not", "remove"]),
        ("seed,epoch,base,ours\n0,9,1,2\n1,9,2,3\n", {}, ["taken for an arm, which epoch is not"]),
        ("seed 0,seed 1\n1,2\n2,3\n", {}, ["no column is known to hold the arms"]),
        ("arm,seed,valLoss\na,0,1\na,1,2\nb,0,1\nb,1,2\n", {"metric": "valLoss"}, ["less is better"]),
        (LONG_CSV, {"contrasts": ("ours",)}, ["--contrasts ours: names one arm; write ARM:REFERENCE"]),
        ("arm,seed,miou\na,0,1\na,1,2\n", {}, ["has one arm, a", "needs two"]),
        (LONG_CSV, {"arm": "methd"}, ["--arm", "unknown column 'methd'", "did you mean 'method'?"]),
        (LONG_CSV, {"reference": "bse"}, ["--reference", "unknown arm 'bse'", "did you mean 'base'?"]),
        (LONG_CSV, {"contrasts": ("ours:bas",)}, ["--contrasts ours:bas", "did you mean 'base'?"]),
        (LONG_CSV, {"contrasts": ("ours:ours",)}, ["compared with itself"]),
        (LONG_CSV.replace("ours,1", "ours,7").replace("ours,2", "ours,8"), {}, ["share 1 seed", "--unpaired"]),
        ("a,b,state\n1,2,x\n", {}, ["no column is known to hold the arms", "--arm", "a, b, state"]),
        ("arm,seed,foo,bar\na,0,1,2\na,1,1,2\n", {}, ["no column is known to be the metric", "--metric"]),
        ("arm,seed,seed\na,0,1\n", {}, ["'seed' stands twice"]),
        (LONG_CSV + "ours,3,77.0,what\n", {}, ["row 8 has 4 cells", "names 3"]),
        (LONG_CSV + ",3,77.0\n", {}, ["row 8", "method must be the name of an arm", "empty"]),
        ("arm,miou\na,1\nb:a,2\na:b,3\na,3\n", {"contrasts": ("a:b:a",)}, ["a against b:a or a:b against a; rename"]),
        ("arm,miou\na,1\nb,2\nb,3\n", {"contrasts": ("a:b", "b:a")}, ["compared once"]),
        ("a,val/miou,test/miou\nx,1,2\nx,1,2\n", {"arm": "a"}, ["val/miou and test/miou", "--metric"]),
        (LONG_CSV.replace("ours,0", '"ours,0'), {}, ["row 5", "a cell that begins with a quote must end with one"]),
        (LONG_CSV.replace(",", "|"), {}, ["must name two columns or more, separated by", "'method|seed|miou'"]),
        ("# by hand\n" + LONG_CSV, {}, ["must name two columns or more", "'# by hand'"]),
        ("\0a\0,\0b\n1,2\n", {}, ["of printable characters, but got '\\x00a\\x00'", "UTF-8"]),
        (LONG_CSV.replace("ours,1", "ours,nan"), {}, ["row 6: seed must be a seed, but got 'nan'"]),
        (LONG_CSV, {"arm": "seed", "seed": "seed"}, ["--arm and --seed both name the column seed"]),
        ("arm,miou\n" + "".join(f"a{i // 2},1\n" for i in range(2004)), {}, ["1002 arms make 1,001", "--contrasts"]),
    ],
)
def test_what_cannot_be_judged_is_refused_with_its_place_and_a_remedy(tmp_path, text, choices, words):
    said = refused(tmp_path, text, **choices)
    for word in words:
        assert word in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("book.xlsx", ["spreadsheet", "save its sheet as CSV"]),
        ("x.parquet", ["is not a Parquet file"]),
        ("x.csv.gz", ["compressed", "unpack it"]),
        ("x.jsonl", ["no table", "save its table as CSV"]),
    ],
)
def test_other_files_are_refused(tmp_path, name, words):
    said = refused(tmp_path, "PK", name)
    assert all(word in said for word in words)


@pytest.mark.slow
def test_text_in_another_encoding_is_refused(tmp_path):
    with pytest.raises(UserError, match="save the file as UTF-8"):
        read(tmp_path, LONG_CSV, encoding="utf-16")


SCORE = st.integers(-10_000, 10_000).map(lambda n: n / 100)


@pytest.mark.slow
@given(st.dictionaries(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), SCORE, min_size=4), st.randoms())
def test_layout_and_order_of_rows_change_nothing(scores, shuffle):
    """Long rows in any order and a column for each arm: the same table, or a refusal of both."""
    cells = list(scores.items())
    shuffle.shuffle(cells)
    long = {
        "arm": [arm for (arm, _), _ in cells],
        "seed": [seed for (_, seed), _ in cells],
        "score": [score for _, score in cells],
    }
    arms, seeds = sorted({arm for arm, _ in scores}), sorted({seed for _, seed in scores})
    assume(len(arms) > 1)
    contrasts = tuple(f"{arm}:{arms[0]}" for arm in arms[1:])
    wide = {"seed": seeds} | {arm: [scores.get((arm, seed)) for seed in seeds] for arm in arms}
    tables = []
    for columns in (long, wide):
        try:
            choices = Choices(arm="arm" if "arm" in columns else None, contrasts=contrasts)
            found = judged("x", frame_of(columns), choices).measured
            tables.append([(arm, found.scores[arm]) for arm in arms] + [found.paired])
        except UserError as refusal:
            tables.append(str(refusal))
    assert tables[0] == tables[1]
