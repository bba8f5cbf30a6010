"""Which contrasts of a study have a verdict, and which have still to wait."""

from __future__ import annotations

import pytest

from ablations.statistics.outcome import Outcome
from ablations.statistics.verdicts import study_verdicts
from ablations.study.plan import expand

ARMS = "variants: {alone: {distill: {}}, Base: {}, Other: {distill.pea: null}}\nseeds: 8\n"


@pytest.mark.parametrize("status", ["running", "missing", None, "failed"])
def test_a_contrast_waits_until_all_runs_of_both_its_arms_have_ended(study, status):
    written = study(ARMS)
    runs = expand(written)
    outcomes = {run.key: Outcome("finished", {"val/miou": 50.0 + (run.arm == "Other")}) for run in runs}
    open_one = next(run.key for run in runs if (run.arm, run.seed) == ("Base", 3))
    del outcomes[open_one]
    if status:
        outcomes[open_one] = Outcome(status)
    found = study_verdicts(written, runs, outcomes)
    base = "undecided" if status == "failed" else "not yet"
    assert [(one.arm, one.reference, one.verdict) for one in found.contrasts] == [
        ("Base", "alone", base),
        ("Other", "alone", "better"),
    ]
    assert found.runs == runs and found.look == 8
    assert [one.found.n for one in found.contrasts] == [7, 8]
