"""`transkd report A B --across` over ledgers: what it prints and writes, and what it refuses before it writes."""

from __future__ import annotations

import csv
import json

import pytest

from orchestrator.report.bundle import pack
from orchestrator.verbs.report import report
from trainer.config import UserError


@pytest.fixture
def two(synthetic, tmp_path, monkeypatch):
    """The files of two studies with the same arms at two sizes, and the store that has the runs of both."""
    monkeypatch.chdir(tmp_path)
    first, second = synthetic("arms"), synthetic("again", "second")
    with first.store.ledger.open("a") as ledger:
        ledger.write(second.store.ledger.read_text())
    return first, second


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_report_across_two_studies(two, capsys):
    first, second = two
    report(str(first.file), first.store.root, others=[str(second.file)], across=True)
    printed = capsys.readouterr()
    folder = first.store.root / "studies" / "arms+again"
    assert f"page: {folder / 'report.html'}" in printed.err
    assert files(folder) == ["report.html", *(f"table.{end}" for end in ("csv", "md", "parquet", "tex", "txt"))]
    assert printed.out == (folder / "table.txt").read_text()
    title, heading, *rows = printed.out.splitlines()
    assert title.startswith("arms + again   val mIoU (full protocol), last epoch, 2 studies")
    assert heading.split()[:5] == ["arm", "arms", "again", "mIoU", "n"]
    both = next(row for row in rows if row.startswith("Base <both>"))
    assert "better" in both and both.endswith("undecided on arms; better on again")
    values = {row["arm"]: row for row in csv.DictReader((folder / "table.csv").open())}
    base = values["Base <both>"]
    assert base["n"] == "13" and base["pairs"] == "13"
    mean = (float(base["arms difference"]) + float(base["again difference"])) / 2
    assert float(base["difference"]) == pytest.approx(mean)
    assert float(base["p"]) == pytest.approx(2 * 2 / 2**13)  # the smallest, and Holm's factor of two contrasts
    page = (folder / "report.html").read_text()
    assert "transkd report arms again --across" in page and "Base &lt;both&gt; on again" in page
    assert "undecided on arms; better on again" in page
    assert "\\textbf" in (folder / "table.tex").read_text()


@pytest.mark.slow
def test_the_report_of_bundles_is_that_of_the_store(two, tmp_path):
    first, second = two
    report(str(first.file), first.store.root, None, tmp_path / "of store", [str(second.file)], across=True)
    names = []
    for made in two:
        names.append(str(tmp_path / f"{made.study.name}.tar.gz"))
        pack(made.study, made.file.read_text(), first.store, tmp_path / f"{made.study.name}.tar.gz")
    report(names[0], None, None, None, [names[1]], across=True)
    for name in files(tmp_path / "of store"):
        assert (tmp_path / "of store" / name).read_bytes() == (tmp_path / "arms+again-report" / name).read_bytes()


def test_studies_of_two_numerics_versions_are_refused(two):
    first, second = two
    lines = [json.loads(line) for line in first.store.ledger.read_text().splitlines()]
    launch = {"event": "study", "time": lines[0]["time"], "study": "again", "sources": {"numerics": 1, "data": {}}}
    with first.store.ledger.open("a") as ledger:
        ledger.write(json.dumps(launch) + "\n")
    with pytest.raises(UserError, match="again was computed by numerics version 1 and arms by"):
        report(str(first.file), first.store.root, others=[str(second.file)], across=True)
    assert not (first.store.root / "studies").exists()


def test_studies_that_share_runs_are_refused(two):
    first, _ = two
    renamed = first.file.with_name("renamed.yaml")
    renamed.write_text(first.file.read_text().replace("name: arms", "name: renamed"))
    with pytest.raises(UserError, match=r"renamed and arms share runs \(student alone seed 0\), .* leave one"):
        report(str(first.file), first.store.root, others=[str(renamed)], across=True)
    assert not (first.store.root / "studies").exists()


@pytest.mark.parametrize(
    ("other", "options", "said"),
    [
        ("demo", {}, r"several studies \(.*, demo\) needs --across"),
        ("", {"common": True}, "--common needs --across"),
        ("", {"across": True}, "two studies or more, but got arms"),
        ("demo", {"across": True}, "studies must have the same contrasts, but arms lacks"),
        ("demo", {"across": True, "common": True}, "none is in all of them"),
        ("no such study", {"across": True}, "unknown study 'no such study'"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_nothing_is_written(synthetic, other, options, said):
    made = synthetic()
    with pytest.raises(UserError, match=said):
        report(str(made.file), made.store.root, others=[other] if other else None, **options)
    assert not (made.store.root / "studies").exists()


def test_a_report_does_not_write_over_what_it_reads(two, tmp_path):
    first, second = two
    out = tmp_path / "out"
    out.mkdir()
    (out / "table.csv").symlink_to(second.file)
    before = second.file.read_bytes()
    with pytest.raises(UserError, match=r"--out .*table\.csv would be written over"):
        report(str(first.file), first.store.root, None, out, [str(second.file)], across=True)
    assert second.file.read_bytes() == before
