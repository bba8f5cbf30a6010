"""A report as files: what each holds, in which types, and the same bytes whoever writes them."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil

import pyarrow.parquet as pq
import pytest

from ablations.table.latex import to_latex
from ablations.table.text import to_markdown, to_plain
from orchestrator.report.files import FILES, TRIALS, write
from orchestrator.report.page.data import report_of
from orchestrator.report.table_files import to_columns, to_csv, values_of
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.verbs.report import report
from orchestrator.verbs.status import status


def test_all_files_are_written_and_hold_the_table(synthetic, tmp_path):
    found = synthetic().report
    paths = write(found, tmp_path / "out")
    assert tuple(path.name for path in paths) == FILES == tuple(path.name for path in paths if path.is_file())
    files = {path.name: path for path in paths}
    assert files["table.txt"].read_text() == to_plain(found.table)
    assert files["table.md"].read_text() == to_markdown(found.table)
    assert files["table.tex"].read_text() == to_latex(found.table)
    assert files["table.csv"].read_text() == to_csv(values_of(found.table))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES), "nothing half written is left"


@pytest.mark.slow
def test_the_verb_prints_the_table_and_writes_into_the_store_or_elsewhere(synthetic, tmp_path, capsys):
    made = synthetic()
    report(str(made.file), made.store.root)
    shown = capsys.readouterr()
    assert shown.out == to_plain(made.report.table)
    folder = made.store.root / "studies" / "arms"
    assert shown.err == f"page: {folder / 'report.html'}\n"
    report(str(made.file), made.store.root, out=tmp_path / "out")
    assert (tmp_path / "out" / "report.html").read_bytes() == (folder / "report.html").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "every"), [("arms", 1), ("search", 2)])
def test_a_metric_without_a_value_is_absent_everywhere(synthetic, tmp_path, kind, every):
    """Of all runs, or of every second: as where no pixel is labelled."""
    made = synthetic(kind)
    lines = [json.loads(line) for line in made.store.ledger.read_text().splitlines()]
    lacking = sorted({line["run_id"] for line in lines if line.get("run_id")})[::every]
    for line in lines:
        for metrics in (line.get("metrics", {}), line.get("last", {})) if line.get("run_id") in lacking else ():
            for name in [name for name in metrics if "/" in name and not name.startswith("loss")]:
                del metrics[name]
    made.store.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = made.report
    write(found, tmp_path / "out")
    scores = [row["select/miou" if kind == "search" else "mean"] for row in values_of(found.table)]
    assert any(score is None or math.isnan(score) for score in scores)
    assert 0.0 not in scores
    assert " - " in to_plain(found.table)
    for row in csv.DictReader(io.StringIO((tmp_path / "out" / "runs.csv").read_text())):
        assert (row["score"] == "") == (row["run_id"] in ["", *lacking])
    status(str(made.file), made.store.root)


def test_the_verb_writes_nothing_before_there_is_a_store(synthetic, tmp_path, capsys):
    report(str(synthetic().file), tmp_path / "none")
    assert "not finished" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["arms", "search", "tuned"])
def test_the_same_ledger_gives_the_same_bytes_elsewhere(synthetic, tmp_path, kind):
    made = synthetic(kind)
    first = write(made.report, tmp_path / "first")
    shutil.copytree(made.store.root, tmp_path / "moved")
    second = write(
        report_of(StudyState(made.study, Ledger(Store(tmp_path / "moved").ledger)), Store(tmp_path / "moved")),
        tmp_path / "second",
    )
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name


def test_csv_has_the_raw_numbers(synthetic):
    table = synthetic().report.table
    rows = list(csv.DictReader(io.StringIO(to_csv(values_of(table)))))
    assert [float(row["mean"]) for row in rows] == [row.values["mean"] for row in table.rows]
    assert [row["role"] for row in rows] == ["teacher", "arm", "arm", "arm"]


@pytest.mark.slow
def test_parquet_has_typed_columns(synthetic, tmp_path):
    made = synthetic().report
    write(made, tmp_path)
    columns = pq.read_table(tmp_path / "table.parquet")
    types = {field.name: str(field.type) for field in columns.schema}
    assert (types["arm"], types["n"], types["mean"], types["verdict"]) == ("string", "int64", "double", "string")
    assert columns.column("mean").to_pylist() == [row.values["mean"] for row in made.table.rows]


def test_a_column_of_several_types_becomes_text():
    columns = to_columns([{"value": v, "whole": whole} for v, whole in ((0.5, 1), ("auto", 2.5), (None, None))])
    assert columns.column("value").to_pylist() == ["0.5", "auto", None]
    assert columns.column("whole").to_pylist() == [1.0, 2.5, None]


def test_runs_have_a_row_for_each_epoch(synthetic, tmp_path):
    made = synthetic(ends={("student alone", 5): "running", ("Base <both>", 5): None})
    write(made.report, tmp_path)
    rows = pq.read_table(tmp_path / "runs.parquet").to_pylist()
    count = {(row["arm"], row["seed"]): 0 for row in rows}
    for row in rows:
        count[row["arm"], row["seed"]] += 1
        assert row["study"] == "arms"
        assert math.isnan(row["val/iou/rider"])
    assert count[("teacher segformer_mini", 0)] == 2
    assert count[("student alone", 4)] == 9
    assert count[("student alone", 5)] == 2
    assert ("Base <both>", 5) not in count
    last = next(row for row in rows if row["arm"] == "Base <both>" and row["seed"] == 0 and row["epoch"] == 9)
    assert last["val/miou"] == made.report.scores["Base <both>"][0]
    assert last["status"] == "finished"


@pytest.mark.slow
def test_every_trial_is_exported_with_what_was_proposed(synthetic, tmp_path):
    made = synthetic("search", ends={("trial 3", 0): "refused", ("trial 6", 0): "failed"}).report
    paths = write(made, tmp_path)
    assert tuple(path.name for path in paths) == (*TRIALS, *FILES)
    rows = pq.read_table(tmp_path / "trials.parquet").to_pylist()
    assert [row["trial"] for row in rows] == list(range(20))
    for row, trial in zip(rows, made.searched[0].trials, strict=True):
        assert {path: row[path] for path in trial.values} == trial.values
        assert row["distill.pea.weight"] == trial.values.get("distill.pea.weight")
        assert (row["state"], row["epochs"]) == (trial.state, trial.epochs)
    assert (rows[3]["run_id"], rows[3]["reason"], rows[3]["select/miou"]) == ("", "too large", None)
    read = list(csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text())))
    assert [float(row["optim.lr"]) for row in read] == [row["optim.lr"] for row in rows]
    tuned = write(synthetic("tuned", "second").report, tmp_path / "tuned")[1]
    assert pq.read_table(tuned).column("arm").to_pylist() == ["student alone"] * 16 + ["both"] * 16


def test_a_trial_that_failed_has_the_epochs_that_it_trained(synthetic):
    found = synthetic("search", ends={("trial 6", 0): "failed"}).report
    row = found.searched[0].trials[6]
    assert (row.state, row.epochs) == ("failed", 3)
    assert math.isfinite(row.metrics["select/miou"])


@pytest.mark.slow
def test_runs_of_a_search_are_its_trials(synthetic, tmp_path):
    write(synthetic("tuned").report, tmp_path)
    arms = set(pq.read_table(tmp_path / "runs.parquet").column("arm").to_pylist())
    assert {"student alone", "both", "student alone trial 0", "both trial 7"} <= arms


@pytest.mark.slow
def test_a_row_of_runs_csv_is_a_seed(synthetic, tmp_path):
    made = synthetic(ends={("student alone", 5): "failed", ("Base <both>", 5): None}).report
    write(made, tmp_path)
    rows = {(row["arm"], row["seed"]): row for row in csv.DictReader((tmp_path / "runs.csv").open())}
    assert len(rows) == 1 + 3 * 6
    for arm, scores in made.scores.items():
        for seed, score in scores.items():
            assert float(rows[arm, str(seed)]["score"]) == score == float(rows[arm, str(seed)]["val/miou"])
    assert (rows["student alone", "5"]["score"], rows["student alone", "5"]["status"]) == ("", "failed")
    assert rows["Base <both>", "5"]["status"] == "missing"


def test_table_csv_has_a_column_for_each_seed(synthetic):
    made = synthetic(ends={("student alone", 5): "failed"}).report
    row = next(r for r in csv.DictReader(io.StringIO(to_csv(values_of(made.table)))) if r["arm"] == "student alone")
    assert [row[f"seed {seed}"] for seed in range(6)] == [
        *(str(made.scores["student alone"][seed]) for seed in range(5)),
        "",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["arms", "search", "tuned", "costs"])
def test_no_cell_of_a_csv_is_a_python_list(synthetic, tmp_path, kind):
    write(synthetic(kind).report, tmp_path)
    for file in tmp_path.glob("*.csv"):
        assert not [cell for row in csv.reader(file.open()) for cell in row if cell.startswith(("[", "(", "{"))]


def test_no_cell_of_a_csv_is_a_formula_or_steers_a_terminal():
    names = ["=1+1", "+x", "@SUM(A1)", "-cmd|' /C calc'!A0", "  =x", "\t=x", "a\x1b[31m", "größe"]
    text = to_csv([{"arm": name, "=mean": -0.5, "n": 2} for name in names])
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["arm", "'=mean", "n"] and rows[1] == ["'=1+1", "-0.5", "2"]
    assert all(cell[:1] not in "=+@\t" and "\x1b" not in cell for row in rows for cell in row)
    assert rows[-1][0] == "größe" and rows[4][0] == "'-cmd|' /C calc'!A0"
