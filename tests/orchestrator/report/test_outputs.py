"""No command writes over what it reads, by whatever name or link, nor into the folder of a run; bundles are read."""

import json

import pytest

from orchestrator.report.bundle import pack
from orchestrator.verbs.bundle import bundle
from orchestrator.verbs.explain import explain
from orchestrator.verbs.report import report
from orchestrator.verbs.status import status
from orchestrator.verbs.sync import sync
from trainer.config import UserError

COSTS = "costs"
"""The synthetic study whose report takes the least time."""


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def made(synthetic, tmp_path, monkeypatch):
    """A study's file and its store, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return synthetic(COSTS)


@pytest.mark.parametrize("name", ["runs.parquet", "table.parquet", "table.csv", "report.html", "trials.parquet"])
def test_a_report_does_not_follow_a_link_onto_the_ledger(made, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).symlink_to(made.store.ledger)
    before = contents(made.store.root)
    with pytest.raises(UserError, match=f"--out .*{name} would be written over .*ledger.jsonl, which is read"):
        report(str(made.file), made.store.root, None, out)
    assert contents(made.store.root) == before


@pytest.mark.slow
def test_a_report_does_not_replace_its_study_nor_its_bundle(made, tmp_path):
    study = made.file.rename(tmp_path / "table.csv")
    with pytest.raises(UserError, match=r"table\.csv would be written over table\.csv, which is read"):
        report("table.csv", made.store.root, None, tmp_path)
    file = tmp_path / "costs.tar.gz"
    pack(made.study, study.read_text(), made.store, file)
    out = tmp_path / "out"
    out.mkdir()
    (out / "table.parquet").symlink_to(file)
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"table\.parquet would be written over costs\.tar\.gz"):
        report("costs.tar.gz", None, None, out)
    assert file.read_bytes() == before


def test_a_report_into_the_folder_of_a_run_is_refused(made, tmp_path):
    run = next(made.store.runs_dir.iterdir())
    (tmp_path / "link").symlink_to(run)
    before = contents(made.store.root)
    for out in (run, run / "below", made.store.runs_dir, tmp_path / "link"):
        with pytest.raises(UserError, match="is the folder of a run, or in one"):
            report(str(made.file), made.store.root, None, out)
    (tmp_path / "fitted").mkdir()
    (tmp_path / "fitted" / "last.pt").touch()
    with pytest.raises(UserError, match="is the folder of a run, or in one"):
        report(str(made.file), made.store.root, None, tmp_path / "fitted")
    assert contents(made.store.root) == before


def test_the_reports_of_sync_are_checked_too(made):
    folder = made.store.report_dir(COSTS)
    folder.mkdir(parents=True)
    made.file.rename(folder / "table.txt")
    with pytest.raises(UserError, match=r"the report .*table\.txt would be written over"):
        sync(str(folder / "table.txt"), made.store.root, None)


@pytest.mark.slow
def test_sync_to_a_damaged_database_fails_with_the_remedy(made, capsys, caplog):
    made.store.database.write_bytes(b"not a database" * 1000)
    with pytest.raises(SystemExit, match="1"):
        sync(str(made.file), made.store.root, None)
    assert "move the file away if it is damaged, and run the same command again" in capsys.readouterr().err
    (said,) = caplog.messages
    assert "no tracking at" in said and said.endswith("which no run waits for: DatabaseError: file is not a database")


def test_a_file_elsewhere_that_a_link_leads_to_is_left_alone(made, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "runs.parquet").symlink_to(tmp_path / "notes.txt")
    report(str(made.file), made.store.root, None, tmp_path / "out")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "out" / "runs.parquet").is_symlink()


def test_a_bundle_is_not_put_into_a_run_or_over_its_study(made, tmp_path):
    run = next(made.store.runs_dir.iterdir())
    with pytest.raises(UserError, match="is in the folder of a run"):
        bundle(str(made.file), made.store.root, None, run / "costs.tar.gz")
    (tmp_path / "link.tar.gz").symlink_to(made.store.ledger)
    with pytest.raises(UserError, match=r"would be written over .*ledger\.jsonl"):
        bundle(str(made.file), made.store.root, None, tmp_path / "link.tar.gz")


@pytest.mark.slow
def test_explain_and_status_read_stored_studies_and_bundles(made, tmp_path, capsys):
    text = made.file.read_text()
    pack(made.study, text, made.store, tmp_path / "costs.tar.gz")
    explain(str(made.file), made.store.root)
    wanted = capsys.readouterr().out
    explain("costs.tar.gz")
    assert capsys.readouterr().out == wanted
    lines = made.store.ledger.read_text()
    event = json.dumps({"event": "study", "study": "costs", "text": text}) + "\n"
    made.store.ledger.write_text(event + lines)
    made.file.unlink()
    explain(COSTS, made.store.root)
    assert capsys.readouterr().out == wanted
    status(COSTS, made.store.root, None)
    said = capsys.readouterr().out
    status("costs.tar.gz", None, None)
    assert capsys.readouterr().out == said
