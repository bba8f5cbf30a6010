"""Drivers write a journal each, and readers fold them into one ledger, in the order in which things happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.store import journal as journal_module
from orchestrator.store import ledger as ledger_module
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.ledger_run import STATUS
from orchestrator.store.repair import repair
from orchestrator.store.run_folder import reconcile
from orchestrator.verbs.repair import repair as repair_verb
from trainer.config import UserError

KINDS = ("started", "retried", "finished", "failed", "stopped", "interrupted", "epoch", "note", "reused")
STEPS = st.tuples(
    st.sampled_from(["", "a", "b", "c"]), st.sampled_from(["r", "s"]), st.sampled_from(KINDS), st.integers(0, 59)
)
"""Who writes, about which run, what, and what its clock says then: clocks differ, and go back."""

WRITER = """
import sys
from pathlib import Path
from orchestrator.store.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]), sys.argv[2])
ledger.append({"event": "study", "study": sys.argv[2], "environment": {"python": sys.argv[2]}})
for number in range(int(sys.argv[3])):
    run = {"run_id": f"{sys.argv[2]}{number}", "study": sys.argv[2], "arm": "arm", "seed": number}
    ledger.append({"event": "started", **run})
    ledger.append_epochs(run["run_id"], [{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.25}])
    ledger.append({"event": "finished", **run, "last": {"epoch": 2.0}})
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


def afresh(path):
    """The ledger as a process reads it that has not read it before."""
    ledger_module._FOLDS.pop(path, None)
    return Ledger(path)


def event(kind, run_id, **more):
    needed = {"epoch": {"metrics": {"epoch": 1.0}}, "note": {"text": "said"}, "finished": {"last": {"epoch": 1.0}}}
    return {"event": kind, "run_id": run_id, **needed.get(kind, {}), **more}


@pytest.mark.slow
@given(steps=st.lists(STEPS, max_size=30), reads=st.lists(st.booleans(), min_size=30, max_size=30))
def test_runs_are_as_the_last_driver_left_them_whatever_the_clocks_say(tmp_path_factory, steps, reads):
    path = tmp_path_factory.mktemp("store") / "ledger.jsonl"
    turns, clock = {}, {"s": 0}

    def now():
        return f"2026-01-01T00:00:{clock['s']:02d}.000+00:00"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "now", now)
        patch.setattr(ledger_module, "now", now)
        for (driver, run_id, kind, clock["s"]), read in zip(steps, reads, strict=False):
            Ledger(path, driver).append(event(kind, run_id, reason=driver))
            if kind in STATUS:
                turns.setdefault(run_id, []).append((kind, driver))
            if not read:
                continue
            for ledger in (Ledger(path), afresh(path)):
                runs = ledger.outcomes()
                for name, own in turns.items():
                    assert (runs[name].status, runs[name].reason) == (STATUS[own[-1][0]], own[-1][1])
                    assert runs[name].attempts == sum(STATUS[kind] == "running" for kind, _ in own)


@pytest.mark.slow
def test_drivers_write_at_once_and_each_run_has_the_environment_of_its_own(tmp_path, path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]), prepend=os.pathsep)
    names, runs = ("one", "two", "three"), 30
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name, str(runs)]) for name in names]
    following = Ledger(path)
    while any(writer.poll() is None for writer in writers):
        following.outcomes()
    assert [writer.returncode for writer in writers] == [0] * 3
    for ledger in (following, afresh(path)):
        found = ledger.outcomes()
        assert len(found) == len(names) * runs
        for run in found.values():
            (member,) = run.members
            assert (run.status, run.attempts, len(run.epochs)) == ("finished", 1, 2)
            assert run.environment == {"python": member.study} and run.trained_by == member.study
        assert sorted(kind["study"] for kind in ledger.events() if kind["event"] == "study") == sorted(names)
    assert sorted(file.name for file in (tmp_path / "journals").iterdir()) == sorted(f"{name}.jsonl" for name in names)
    assert not path.exists()


def test_a_journal_that_is_seen_late_is_read_in_its_place(tmp_path, path):
    """Another machine's file may be seen after the one that went on from it."""
    Ledger(path, "a").append(event("started", "r", time="2026-01-01T00:00:01"))
    Ledger(path, "a").append(event("interrupted", "r", time="2026-01-01T00:00:02"))
    Ledger(path, "b").append(event("started", "r", time="2026-01-01T00:00:03"))
    Ledger(path, "b").append(event("finished", "r", time="2026-01-01T00:00:04"))
    hidden = (tmp_path / "journals" / "a.jsonl").rename(tmp_path / "hidden")
    assert afresh(path).outcomes()["r"].attempts == 1
    hidden.rename(tmp_path / "journals" / "a.jsonl")
    run = Ledger(path).outcomes()["r"]
    assert (run.status, run.attempts) == ("finished", 2)
    kinds = [kind["event"] for kind in Ledger(path).events()]
    assert kinds == ["started", "interrupted", "started", "finished"]


def test_the_epochs_of_a_run_come_from_all_journals(path):
    for driver, epochs in (("a", (1.0, 2.0)), ("b", (2.0, 3.0, 4.0))):
        ledger = Ledger(path, driver)
        ledger.append(event("started", "r"))
        for epoch in epochs:
            ledger.append(event("epoch", "r", metrics={"epoch": epoch, "loss": 1 / epoch}))
    for ledger in (Ledger(path), afresh(path)):
        assert [epoch["epoch"] for epoch in ledger.outcomes()["r"].epochs] == [1.0, 2.0, 3.0, 4.0]
        whole = [(launch, written["event"]) for launch, written in ledger.whole()]
        assert [kind for _, kind in whole].count("epoch") == 5 and all(launch == {} for launch, _ in whole)


def test_a_damaged_journal_is_named_with_the_store_to_repair(tmp_path, path):
    Ledger(path, "a").append(event("started", "r"))
    own = tmp_path / "journals" / "b.jsonl"
    own.write_text('garbage\n{"event": "started", "run_id": "q", "time": "2026-01-01"}\n')
    with pytest.raises(UserError, match=rf"{own}:1 must be a JSON event .*; `transkd repair --store {tmp_path}`"):
        Ledger(path).outcomes()
    assert repair(own).left_out == [1]
    assert Ledger(path).outcomes().keys() == {"r", "q"}


@pytest.mark.slow
def test_a_journal_is_repaired_while_other_studies_run(tmp_path, path, capsys):
    Ledger(path, "a").append(event("started", "r"))
    own = tmp_path / "journals" / "b.jsonl"
    own.write_text('garbage\n{"event": "started", "run_id": "q", "time": "2026-01-01"}\n')
    leases = Store(tmp_path).leases
    with leases.study("b"), pytest.raises(UserError, match=r"study b is run by pid"):
        repair_verb(store=tmp_path)
    assert "a.jsonl: of 1 line none is damaged" in capsys.readouterr().out
    with leases.study("c"):
        repair_verb(store=tmp_path)
    assert "b.jsonl: of 2 lines 1 damaged and left out: 1" in capsys.readouterr().out
    assert Ledger(path).outcomes().keys() == {"r", "q"}
    path.write_text("garbage\n")
    with leases.study("c"), pytest.raises(UserError, match=r"is in use by pid .* \(c\)"):
        repair_verb(store=tmp_path)


@pytest.mark.parametrize("edit", ["replaced", "cut", "edited"])
def test_a_journal_that_is_not_what_was_read_is_read_again(tmp_path, path, edit):
    ledger = Ledger(path, "a")
    for run_id in ("r", "s"):
        ledger.append(event("started", run_id))
    assert ledger.outcomes().keys() == {"r", "s"}
    lines = ledger.own.read_bytes().splitlines(keepends=True)
    if edit == "replaced":
        (tmp_path / "new").write_bytes(lines[1])
        (tmp_path / "new").replace(ledger.own)
    elif edit == "cut":
        ledger.own.write_bytes(lines[0])
    else:
        ledger.own.write_bytes(lines[0] + lines[1].replace(b'"s"', b'"t"'))
    expected = {"replaced": {"s"}, "cut": {"r"}, "edited": {"r", "t"}}[edit]
    assert ledger.outcomes().keys() == expected
    assert Ledger(path, "b").outcomes().keys() == expected


def test_an_old_store_goes_on_in_a_journal_of_its_own(tmp_path, path):
    """Versions that knew one journal wrote all studies into the first."""
    first = Ledger(path)
    first.append({"event": "study", "study": "s", "text": "old"})
    first.append(event("started", "r", study="s", arm="arm"))
    before = path.read_bytes()
    driver = Ledger(path, "s")
    assert driver.launch() == {}, "its own environment is to be recorded anew"
    driver.append({"event": "study", "study": "s", "text": "new"})
    driver.append(event("finished", "r", study="s", arm="arm"))
    assert path.read_bytes() == before
    assert driver.launch()["text"] == "new"
    assert Ledger(path).outcomes()["r"].status == "finished"
    lines = (tmp_path / "journals" / "s.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["study", "finished"]


def test_a_run_that_another_driver_trains_is_not_settled(tmp_path):
    store = Store(tmp_path)
    for run_id in ("dead", "alive"):
        Ledger(store.ledger, "a").append(event("started", run_id))
    claim = store.leases.claim("alive", "a")
    reconcile(Ledger(store.ledger, "b"), store)
    runs = Ledger(store.ledger).outcomes()
    assert (runs["dead"].status, runs["alive"].status) == ("interrupted", "running")
    claim.give_back()
    reconcile(Ledger(store.ledger, "b"), store)
    assert Ledger(store.ledger).outcomes()["alive"].status == "interrupted"
