"""A store that an earlier commit wrote is read today as it was read then: run ids, tables, states and plans.

The store, and what that commit printed of it, are in tests/stores/before_wings; its README says how they were made. The
test knows the command line alone, so it holds wherever the code lies. It compares cells and fields, not sentences: a
note, a heading or a cost column may be worded anew. In brackets stood Student's intervals, which table.csv still has.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
OLD = ROOT / "tests" / "stores" / "before_wings"
PRINTED = OLD / "printed"
STUDIES = ("crossed", "failing", "grown", "halted", "learned", "modules", "shared", "sought", "tuned")
SEARCHES = ("learned", "sought", "tuned")
HALTED = "halted"
"""The study that nobody has finished: a kill cut its second run short."""
CUT = "25876ff5183a"
"""Its second run."""
IMPORTED = "138707d18072"
"""The run that `python -m trainer fit` trained and the store took in."""
UNDONE = ("failing", "halted")
"""Studies with runs that have not finished."""
COUNTS = {"crossed": 9, "failing": 7, "grown": 7, "learned": 4, "modules": 7, "shared": 7, "sought": 6, "tuned": 9}
"""Runs and trials of the studies that have nothing left to do."""

SPARED = ("TRANSKD_STORE", "TRANSKD_CACHE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
"""What a developer may have set, and the store must not see."""
STATES = ("finished", "running", "waiting", "interrupted", "stopped", "failed", "missing")
COST = " M par."
"""Heading of the first cost column in the old tables: the cells before it are compared."""

IN_ONE_PROCESS = """
import trainer.config

trainer.config.NUMERICS_VERSION = 1  # of the old store: it is in every run's id

import contextlib, io, json, runpy, sys
said = []
for words in json.load(sys.stdin):
    sys.argv = ["transkd", *words]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module("orchestrator", run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
    said.append([code, out.getvalue(), err.getvalue()])
json.dump(said, sys.stdout)
"""
"""Runs `python -m orchestrator WORDS` for each list of words it is given: the imports are paid once."""


@dataclass(frozen=True)
class Asked:
    """What the commands printed, by the verb and what it was about, and the folders they worked on."""

    said: dict[tuple[str, str], tuple[int, str, str]]
    read: Path
    """The copy of the old store that is read only, and must be so."""
    held: Path
    """The copy whose lease another process holds."""
    written: Path
    """The copy on which a study is run and a run goes on."""
    files: Path
    """Reports' files and the like, by what they are about."""

    def out(self, verb: str, about: str, code: int = 0) -> str:
        """What a command printed, which must have ended with this exit code."""
        ended, out, err = self.said[verb, about]
        assert ended == code, f"{verb} {about}\n{out}\n{err}"
        return out


def copied(folder: Path) -> Path:
    """A copy of the old store, in a folder that it has never been in."""
    with tarfile.open(OLD / "store.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "store"


def commands(read: Path, held: Path, written: Path, files: Path) -> dict[tuple[str, str], tuple[object, ...]]:
    """All commands of this test, in their order, by the verb and what it is about."""
    found: dict[tuple[str, str], tuple[object, ...]] = {}
    for name in STUDIES:
        found["report", name] = ("report", study(name), "--store", read, "--out", files / name)
        found["status", name] = ("status", study(name), "--store", read)
        found["plan", name] = ("plan", study(name), "--store", read, "--no-probe")
    found["report", "bundle"] = ("report", OLD / "modules.tar.gz", "--out", files / "bundle")
    found["import", "all"] = ("import", read / "runs" / IMPORTED, "--store", read)
    for name in COUNTS:
        found["count", name] = ("run", study(name), "--store", held)
    found["run", "modules"] = ("run", study("modules"), "--store", written)
    cut = written / "runs" / CUT
    found["eval", HALTED] = ("eval", cut / "best.pt", "--json", files / "eval.json")
    found["fit", HALTED] = ("fit", cut / "config.yaml", "--out", cut, "--device", "cpu")
    return found


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Asked:
    """All commands, run in one process on three copies of the old store."""
    folder = tmp_path_factory.mktemp("asked")
    read, held, written = (copied(folder / name) for name in ("read", "held", "written"))
    files, cache = folder / "files", folder / "cache"
    files.mkdir()
    cache.mkdir()
    for store in (read, held, written):  # what can be made again is made once: it is no part of the old store
        (store / "cache").symlink_to(cache)
    words = commands(read, held, written, files)
    kept = {name: value for name, value in os.environ.items() if name not in SPARED}
    ours = {"TRANSKD_CACHE": str(cache), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with (held / "lease").open("a+") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, "-c", IN_ONE_PROCESS],
            env=kept | ours,
            cwd=folder,
            input=json.dumps([list(map(str, command)) for command in words.values()]),
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return Asked(dict(zip(words, map(tuple, json.loads(done.stdout)), strict=True)), read, held, written, files)


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """A copy that no command is run on."""
    return copied(tmp_path_factory.mktemp("old"))


def ledger(store: Path) -> list[dict[str, Any]]:
    """The events in a store's journals: the one that all studies shared, then those of studies."""
    journals = [store / "ledger.jsonl", *sorted((store / "journals").glob("*.jsonl"))]
    return [json.loads(line) for path in journals for line in path.read_text().splitlines()]


def epochs(folder: Path) -> list[dict[str, float]]:
    """The epochs in a run's folder."""
    return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]


def study(name: str) -> Path:
    return OLD / "studies" / f"{name}.yaml"


def printed(name: str, verb: str) -> str:
    return (PRINTED / f"{name}.{verb}.txt").read_text()


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?", text)


def tables(text: str) -> list[tuple[list[str], list[list[str]]]]:
    """Of each table in a report: its name and the numbers in its title, and the cells of its rows before the costs. An
    empty cell is left out. A note is no row: three spaces stand between cells only."""
    found = []
    for block in text.strip("\n").split("\n\n"):
        title, heading, *lines = block.splitlines()
        end = heading.index(COST) if COST in heading else None
        rows = [
            re.split(r"\s{3,}", re.sub(r" \[.*?\]", "", line[:end].strip()))
            for line in lines
            if re.search(r"\S\s{3,}\S", line)
        ]
        found.append(([title.split("   ")[0], *numbers(title)], rows))
    return found


def assert_same_tables(name: str, text: str) -> None:
    """The titles' numbers and the rows are those of the old report; behind a row's old cells there may be others."""
    old, new = tables(printed(name, "report")), tables(text)
    assert [title for title, _ in new] == [title for title, _ in old]
    assert all(rows for _, rows in old)
    for (_, before), (_, now) in zip(old, new, strict=True):
        assert [cells[: len(kept)] for cells, kept in zip(now, before, strict=True)] == before


def assert_same_values(old: Path, new: Path) -> None:
    """Every value of the old CSV file stands in the new one, in the column of the same name; a number within 1e-9, and
    the items of a list without brackets and quotes."""
    before, now = (list(csv.DictReader(file.read_text().splitlines())) for file in (old, new))
    assert len(now) == len(before) > 0
    for one, other in zip(before, now, strict=True):
        for column, value in one.items():
            try:
                assert float(other[column]) == pytest.approx(float(value), rel=1e-9, nan_ok=True), column
            except ValueError:
                assert other[column] == re.sub(r"^\['(.*)'\]$", r"\1", value), column


def planned(text: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(arm, seed) -> (run id, what is to become of it), of each run that a plan lists.

    A run that can only fail again is listed as `failed` today; the commit that made the store called it `new`.
    """
    line = re.compile(r"^(\S.*?)\s{2,}(\d+)\s{2,}.*\s([0-9a-f]{12})\s+(\S+(?: \S+)*)\s*$", re.M)
    return {
        (arm, seed): (run_id, "new" if state == "failed" else state) for arm, seed, run_id, state in line.findall(text)
    }


def standing(name: str, text: str) -> list[list[str]]:
    """Of each line of a status: its numbers, states and arms, in their order."""
    arms = sorted({arm for arm, _ in planned(printed(name, "plan"))}, key=len, reverse=True)
    word = re.compile("|".join([*map(re.escape, arms), rf"\b(?:{'|'.join(STATES)})\b", r"\d+(?:\.\d+)?"]))
    return [word.findall(line) for line in text.splitlines()]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_reported_as_it_was(asked, name):
    assert_same_tables(name, asked.out("report", name))
    for file in ["table.csv", "trials.csv"] if name in SEARCHES else ["table.csv"]:
        assert_same_values(PRINTED / f"{name}.{file}", asked.files / name / file)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_stands_where_it_stood_and_its_plan_reuses_the_same_runs(asked, name):
    assert standing(name, asked.out("status", name)) == standing(name, printed(name, "status"))
    before = planned(printed(name, "plan"))
    assert {state for _, state in before.values()} == ({"reused", "new"} if name in UNDONE else {"reused"})
    assert planned(asked.out("plan", name)) == before


def test_a_bundle_is_reported_as_it_was(asked):
    assert_same_tables("modules", asked.out("report", "bundle"))
    assert_same_values(PRINTED / "modules.table.csv", asked.files / "bundle" / "table.csv")


def test_what_was_imported_is_not_taken_in_again(asked, old):
    assert [event["run_id"] for event in ledger(old) if event.get("imported")] == [IMPORTED]
    assert IMPORTED in asked.out("import", "all", code=2), "its checkpoints are not in the small store"
    assert ledger(asked.read) == ledger(old)


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_run_finds_every_run_under_the_id_it_had(asked, name, count):
    """`run` reads the data anew, names each run, and says how many are to do. Then it asks for the store, which it does
    not get here, and ends with 2."""
    assert re.search(rf"^{name}: {count} runs, 0 to do\b", asked.out("count", name, code=2), re.M)


def test_run_starts_nothing_and_prints_the_table_it_printed(asked, old):
    text = asked.out("run", "modules")
    assert re.search(r"^modules: 7 runs, 0 to do\b", text, re.M)
    assert_same_tables("modules", text[text.rindex("\nmodules   ") :])
    before, after = ledger(old), ledger(asked.written)
    assert after[: len(before)] == before
    new = after[len(before) :]
    assert not [event for event in new if event["event"] in ("started", "reused", "finished", "failed")]
    assert {event["run_id"] for event in new if "run_id" in event} == {CUT}, "what a kill left open is settled"


def test_a_run_that_was_cut_short_goes_on_from_its_old_checkpoint(asked, old):
    asked.out("eval", HALTED)
    asked.out("fit", HALTED)
    before, after = epochs(old / "runs" / CUT), epochs(asked.written / "runs" / CUT)
    measured = json.loads((asked.files / "eval.json").read_text())["metrics"]["val/miou"]
    assert measured == pytest.approx(max(epoch["val/miou"] for epoch in before), abs=0.01)
    assert len(before) < len(after) == 12
    assert after[: len(before)] == before
    assert json.loads((asked.written / "runs" / CUT / "result.json").read_text())["run_id"] == CUT
