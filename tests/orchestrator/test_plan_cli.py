"""`transkd plan`: every run at once and before torch is there, then the costs; what has finished is reused."""

import re
import shutil

import pytest
from rich.console import Console

from ablations.study.plan import expand
from ablations.study.schema import load
from orchestrator.state.progress import study_status
from orchestrator.state.study_state import StudyState
from orchestrator.store.ledger import Ledger
from orchestrator.terminal.plan_listing import ENDS, show_plan
from orchestrator.verbs.status import one_line
from trainer.config import Sources

WATCHED = """
import sys
from importlib.abc import MetaPathFinder

unseen = {"torch", "ray", "mlflow"}

class Watch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in unseen:  # looked for, to see whether it is installed, and then imported
            unseen.remove(name)
            print(f"importing {name}", flush=True)

sys.meta_path.insert(0, Watch())
from orchestrator.cli import main
sys.argv[0] = "transkd"
main()
"""

TYPES = """
address: auto
machine_types: {cpu: {cpus: 4, most: 2}, gpu: {cpus: 4, gpus: 1, most: 2}}
overrides: {teacher: {workers: 3, gpus_per_worker: 1}}
"""

UNKNOWN = Sources(1)
"""Nothing is known of what runs read."""


@pytest.mark.slow
def test_the_listing_is_there_before_torch_and_the_costs_follow(driver, study):
    file = study()
    done = driver.script(WATCHED, "plan", file, "--no-probe")
    assert (done.code, done.err) == (0, "")
    listing, torch, costs = done.out.partition("importing torch\n")
    assert torch
    assert "importing" not in listing + costs, "neither ray nor mlflow is needed"
    lines = listing.splitlines()
    assert lines[0] == "tiny   7 runs, 0 reused, 20 epochs to train"
    rows = [re.split(" {2,}", line.strip()) for line in lines[3:10]]
    assert [row[:2] for row in rows] == [
        ["teacher segformer_mini", "0"],
        *[[arm, str(seed)] for seed in (0, 1) for arm in ("student alone", "TransKD-Base", "broken")],
    ]
    assert {row[0]: row[2] for row in rows}["broken"] == "no paths, lr=1e+09"
    assert all(re.fullmatch("[0-9a-f]{12}", row[3]) and row[4] == "new" for row in rows)
    assert len({row[3] for row in rows}) == 7
    assert "this design cannot decide a difference" in listing
    cost = {row[0]: row[1:] for line in costs.splitlines() if len(row := re.split(" {2,}", line.strip())) == 4}
    assert cost["variant"] == ["params (M)", "GMACs (paper)", "GMACs (all)"]
    assert set(cost) == {"variant", "teacher segformer_mini", "student alone, and 2 more"}, (
        "the student is deployed without its paths"
    )
    assert float(cost["teacher segformer_mini"][0]) > float(cost["student alone, and 2 more"][0]) > 0


@pytest.mark.slow
def test_structure_checks_are_cached(driver, study):
    file = study()
    (driver.store / "cache").unlink()
    first = driver.here("plan", file, "--no-probe").out
    files = {path: path.stat().st_mtime_ns for path in (driver.store / "cache" / "checks").iterdir()}
    assert len(files) == 3, "teacher, student alone (twice, for lr shapes nothing), student with paths"
    assert driver.here("plan", file, "--no-probe").out == first
    assert {path: path.stat().st_mtime_ns for path in (driver.store / "cache" / "checks").iterdir()} == files


@pytest.mark.slow
def test_a_search_is_listed_by_its_space_and_rungs(driver):
    listing = driver.here("plan", "demo_search", "--no-probe").out
    assert re.search(r"1 run and 16 trials, 0 reused, up to \d+ epochs to train", listing)
    assert "search: 16 trials, tpe, by select/miou" in listing
    assert re.search(r"distill.csf.weight +log +0.01 .. 10", listing)
    assert "stops at epochs 1 (11%), 3 (33%) of 9; one in 3 goes on" in listing


@pytest.mark.slow
def test_what_it_costs_comes_last_and_is_tried_once(driver, study, cache):
    file = study()
    (driver.store / "cache").unlink()
    shutil.copytree(cache, driver.store / "cache", ignore=shutil.ignore_patterns("probes"))
    first = driver.here("plan", file, "--probe").out.splitlines()[-2:]
    assert re.fullmatch(r"estimate: \d.*?, \d+ runs? at once; [\d.]+ CPU-hours; [\d.]+ GB on disk", first[0])
    assert first[1] == " by a few steps of 3 structures, each alone on this machine"
    tried = driver.store / "cache" / "probes"
    assert len(list(tried.iterdir())) == 3, "teacher, with paths, and student alone, whose pace no rate decides"
    assert driver.here("plan", file).out.splitlines()[-2:] == first


def test_one_run_of_one_epoch_is_counted_as_one(study, tmp_path, capsys):
    base = {"data": {"name": "scenes"}, "student": {"name": "segformer_tiny"}, "optim": {"epochs": 1}}
    state = StudyState(
        load(study(variants={"only": {}}, base=base, reference=None, contrasts=None, seeds=1)),
        Ledger(tmp_path / "none.jsonl"),
        UNKNOWN,
    )
    show_plan(state, Console(width=120, highlight=False))
    assert capsys.readouterr().out.splitlines()[0] == "tiny   1 run, 0 reused, 1 epoch to train"
    assert one_line(study_status(state, {})) == "1 run: 1 missing; driver: none"


def test_a_long_plan_is_cut_in_the_middle(study, tmp_path, capsys):
    file = study(variants=None, factors={"optim.lr": [1.0e-3 * k for k in range(1, 8)]}, seeds=30)
    listed = load(file)
    show_plan(StudyState(listed, Ledger(tmp_path / "none.jsonl"), UNKNOWN), Console(width=120, highlight=False))
    cut = capsys.readouterr().out.splitlines()
    assert cut[0] == "tiny   211 runs, 0 reused, 632 epochs to train"
    assert sum(line.endswith("new") for line in cut) == 2 * ENDS
    assert "... 171 more; --all lists them" in cut
    show_plan(
        StudyState(listed, Ledger(tmp_path / "none.jsonl"), UNKNOWN), Console(width=120, highlight=False), whole=True
    )
    assert sum(line.endswith("new") for line in capsys.readouterr().out.splitlines()) == 211


def test_seeds_of_later_looks_are_listed_as_such(study, tmp_path, capsys):
    listed = load(study(seeds={"looks": [4, 8], "until": "decided"}))
    show_plan(StudyState(listed, Ledger(tmp_path / "none.jsonl"), UNKNOWN), Console(width=120, highlight=False))
    states = [line.split()[-1] for line in capsys.readouterr().out.splitlines()[3:28]]
    assert states == ["new"] * 13 + ["needed"] * 12


def test_a_run_that_is_there_is_listed_as_the_store_calls_it(study, tmp_path, capsys):
    listed, ledger = load(study()), Ledger(tmp_path / "ledger.jsonl")
    first, *others = expand(listed)
    ledger.append({"event": "finished", "run_id": "0123456789ab", "key": first.key, "study": "other", "last": {}})
    show_plan(StudyState(listed, ledger), Console(width=120, highlight=False))
    named = [re.split(" {2,}", line.strip())[3:] for line in capsys.readouterr().out.splitlines()[3:10]]
    assert named == [["0123456789ab", "reused"], *[[run.key, "new"] for run in others]]


@pytest.mark.slow
@pytest.mark.ray
def test_what_has_finished_is_reused_by_this_study_and_another(finished, study):
    # two runs have failed of a loss that is not finite: `run` does not train them again
    assert "tiny   7 runs, 5 reused, 0 epochs to train" in finished.driver.here("plan", finished.file, "--no-probe").out
    other = study("other", variants={"student alone": {"distill": {}}, "pea alone": {"distill.csf": None}})
    listing = finished.driver.here("plan", other, "--no-probe").out
    states = dict(re.findall(r"^([\w -]+?)  +[01] .* (\w+) *$", listing, re.MULTILINE))
    assert states == {"teacher segformer_mini": "reused", "student alone": "reused", "pea alone": "new"}


@pytest.mark.slow
def test_what_no_machine_can_hold_is_refused_before_anything_is_listed(driver, study, tmp_path):
    (tmp_path / "types.yaml").write_text(TYPES, encoding="utf-8")
    done = driver("plan", study(), "--no-probe", "--cluster", tmp_path / "types.yaml")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: a run needs 3 GPUs (3 workers x 1) but there are 2; lower workers or gpus_per_worker, or raise most of "
        "a machine type\n"
    )


def test_a_range_of_workers_is_listed_and_counted_with_the_lower_number(driver, study):
    said = driver.here("plan", study(), "--workers", "1-4", "--no-probe").out
    steps = [line.partition(";")[0] for line in said.splitlines() if line.startswith("8 samples a step")]
    assert steps == ["8 samples a step" + each for each in ("", ", 4 on each of 2 workers", ", 2 on each of 4 workers")]
    assert " with 1 worker a run; up to 4 train a run where they have room, which ends it sooner\n" in said
