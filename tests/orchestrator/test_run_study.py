"""`transkd run`: the teacher first, every variant and seed, a failure as a row, and nothing twice."""

import json
import re

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ray]

RECORDING = """
import json, os, sys
from pathlib import Path
from ablations.study.schema import load
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.tracking.mirror import Mirror
from orchestrator.terminal.log_lines import StudyProgress, Lines
from orchestrator.store.folder import Store
from rich.console import Console

pids = {}
class View(Lines):
    def epoch(self, job, metrics):
        pids.setdefault(job.label, set()).add(metrics["pid"])

store = Store(Path(sys.argv[2]))
study = load(sys.argv[1])
job = Launch(study, ClusterSpec(cpus_per_worker=0.5, concurrency=1), store, {})
job.prepare(lambda text: None)
with store.leases.study(study.name):
    job.run(Mirror(study.name, store), lambda: View(Console(file=sys.stderr), StudyProgress(job.state)))
print(json.dumps({"driver": os.getpid(), "pids": {label: sorted(found) for label, found in pids.items()}}))
"""

WITHOUT_RAY = """
import sys
from orchestrator.verbs.run import launch
code = launch(sys.argv[1])
assert "ray" not in sys.modules and "torch" in sys.modules, "a finished study starts no Ray"
sys.exit(code)
"""


def rows(table):
    """Arm -> its seeds and its score, of a table as text."""
    cells = [re.split(" {2,}", line) for line in table.splitlines()]
    return {cell[0]: cell[1:3] for cell in cells if len(cell) > 2}


def test_an_arm_with_a_teacher_starts_after_the_teacher_and_one_without_may_train_beside_it(finished):
    order = [(event["event"], event["arm"]) for event in finished.driver.events("started", "finished")]
    taught = [place for place, started in enumerate(order) if started == ("started", "TransKD-Base")]
    assert len(taught) == 2
    assert order.index(("finished", "teacher segformer_mini")) < min(taught)


def test_every_variant_and_seed_is_run_once(finished):
    started = [(event["arm"], event["seed"]) for event in finished.driver.events("started")]
    arms = [(arm, seed) for seed in (0, 1) for arm in ("student alone", "TransKD-Base", "broken")]
    assert sorted(started) == sorted([("teacher segformer_mini", 0), *arms])
    for (arm, _, _), epochs in finished.driver.numbers().items():
        assert [epoch["epoch"] for epoch in epochs] == list(range(1, 3 if "teacher" in arm else 4))


def test_a_failed_run_is_a_row_with_its_reason_and_the_study_goes_on(finished):
    assert finished.done.code == 1
    failed = finished.driver.events("failed")
    assert [(event["arm"], event["cause"]) for event in failed] == [("broken", "nan")] * 2
    assert len(finished.driver.events("finished")) == 5
    table = finished.driver.table()
    assert re.search(r"^broken +0/2 ", table, re.MULTILINE)
    assert "not finished: 2 of 7 runs: 2 failed" in table
    assert "next: transkd run tiny --retry-failed tries the 2 failed runs again" in table
    failed = r"failed: 2 of 7 runs, the first broken seed 0: nan: loss/ce is not finite .*"
    assert re.fullmatch(failed, finished.done.err.splitlines()[-1])


def test_the_table_is_what_is_printed_last_and_nothing_else_speaks(finished):
    *progress, table = finished.done.out.partition("\n\n")
    assert table == finished.driver.table()
    assert "tiny: Ray is there, with room for " in progress[0]
    said = [line for line in progress[0].splitlines() if not line.startswith("tiny: ")]
    assert all(
        re.fullmatch(r"\d\d:\d\d:\d\d .*(started|waiting for resources|finished  .*|failed  .*| epochs  .*)", line)
        for line in said
    ), said


def test_the_page_and_the_tracking_are_named_at_the_end(finished):
    page, tracking, _ = finished.done.err.splitlines()
    assert re.fullmatch(r"page: /.+/studies/tiny/report\.html", page)
    assert re.fullmatch(r"MLflow: sqlite:////.+/mlflow\.db; `transkd ui tiny` shows it", tracking)


def test_report_and_status_say_it_again_without_writing(finished):
    before = finished.driver.events()
    assert finished.driver.here("report", finished.file).out == finished.driver.table()
    said = finished.driver.here("status", finished.file).out
    assert re.fullmatch(
        r"tiny: 7 runs: 5 finished, 2 failed; driver: none\n"
        r"  14/14 epochs  best val/miou \d+\.\d\d \((student alone|TransKD-Base) seed [01]\)\n"
        r"  broken seed 0, broken seed 1: failed: nan: loss/ce is not finite at step \d\n",
        said,
    ), said
    assert finished.driver.events() == before


def test_another_study_reuses_what_has_finished_and_starts_no_ray(finished, study):
    shared = {"student alone": {"distill": {}}, "TransKD-Base": {}}
    other = study("other", variants=shared)
    done = finished.driver.script(WITHOUT_RAY, other)
    assert done.code == 0 and [line.partition(": ")[0] for line in done.err.splitlines()] == ["page", "MLflow"]
    assert "other: 5 runs, 0 to do" in done.out
    reused = finished.driver.events("reused")
    assert [event["arm"] for event in reused].count("TransKD-Base") == 2
    assert len(reused) == 5
    assert rows(finished.driver.table("other"))["TransKD-Base"] == rows(finished.driver.table())["TransKD-Base"]
    assert finished.driver.here("run", other).code == 0
    assert len(finished.driver.events("reused")) == 5


def test_a_failed_teacher_fails_its_arms_and_the_others_share_one_process(driver, study):
    teacher = {"name": "segformer_mini", "train": {"epochs": 2, "lr": 1.0e9}}
    base = {
        "data": {"name": "scenes", "size": [64, 128], "options": {"train": 16, "val": 8, "size": [64, 128]}},
        "student": {"name": "segformer_tiny"},
        "teacher": teacher,
        "optim": {"lr": 1.0e-3, "epochs": 1, "global_batch": 8},
        "distill": {"pea": {}},
    }
    file = study("untaught", base=base, variants={"student alone": {"distill": {}}, "taught": {}}, seeds=[0, 1, 2])
    done = driver.script(RECORDING, file, driver.store)
    assert done.code == 0, done.err
    failed = {(event["arm"], event["seed"]): event for event in driver.events("failed")}
    why = failed["teacher segformer_mini", 0]["reason"]
    assert why.startswith("loss/ce is not finite at step ")
    for seed in (0, 1, 2):
        assert failed["taught", seed]["cause"] == "teacher"
        assert failed["taught", seed]["reason"] == f"teacher segformer_mini seed 0 did not finish: {why}"
    assert len(driver.events("finished")) == 3
    assert not [event for event in driver.events("started") if event["arm"] == "taught"]
    seen = json.loads(done.out.splitlines()[-1])
    pids = [seen["pids"][f"student alone seed {seed}"] for seed in (0, 1, 2)]
    assert len(pids[0]) == 1 and pids[0] == pids[1] == pids[2], "one process trains them one after the other"
    assert seen["driver"] not in pids[0]
