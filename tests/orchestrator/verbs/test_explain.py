"""explain: the table, and everything that affects how it is read, in sentences."""

from __future__ import annotations

import re

from ablations.statistics.power import POWER
from ablations.study.plan import expand
from ablations.study.schema import load
from ablations.table.text import to_plain
from orchestrator.report.table import table
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.verbs.explain import explain

STUDY = """
name: wondered
base: {student: {name: segformer_tiny}, optim: {epochs: 2}, distill: {}}
variants: {alone: {}, faster: {optim.lr: 1.0e-3}}
seeds: 6
"""


def test_it_prints_the_table_and_then_whole_sentences(tmp_path, capsys):
    (tmp_path / "wondered.yaml").write_text(STUDY)
    store, study = Store(tmp_path / "store"), load(str(tmp_path / "wondered.yaml"))
    ledger = Ledger(store.ledger)
    for number, run in enumerate(expand(study)):
        who = {"run_id": run.key, "key": run.key, "study": study.name, "arm": run.arm, "seed": run.seed}
        metrics = {"epoch": 2.0, "val/miou": 40.0 + (7 * number) % 5}
        ledger.append({"event": "started", "role": "arm", **who})
        ledger.append({"event": "finished", "role": "arm", "last": metrics, **who})
    shown = table(StudyState(study, Ledger(store.ledger)))
    explain(str(tmp_path / "wondered.yaml"), store.root)
    said = capsys.readouterr().out
    assert said.startswith(to_plain(shown))
    sentences = [line.strip() for line in said.removeprefix(to_plain(shown)).splitlines() if line.strip()]
    assert tuple(sentences) == shown.explained
    assert all(re.match(r"[A-Z0-9].*\.$", text) for text in sentences)
    assert any(f"with {POWER * 100:g} % power" in text for text in sentences)


def test_it_makes_no_store(tmp_path, capsys):
    (tmp_path / "wondered.yaml").write_text(STUDY)
    explain(str(tmp_path / "wondered.yaml"), tmp_path / "none")
    assert "did not finish: not run yet." in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
