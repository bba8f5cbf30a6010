"""`transkd plan` and `--max-gpu-hours` tell the truth: what is called reused is what `transkd run` does not train."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ablations.study.schema import load
from cluster.spec_file import load as load_spec
from orchestrator.launch import Launch
from orchestrator.prepare import jobs
from orchestrator.prepare.estimate import estimate, refuse
from orchestrator.runs_left import count_left, to_train
from orchestrator.store.folder import Store
from orchestrator.store.provenance import begin
from orchestrator.verbs import plan as plan_verb
from orchestrator.verbs.bundle import bundle
from orchestrator.verbs.plan import plan
from orchestrator.verbs.report import report
from trainer.config import NUMERICS_VERSION, UserError, parse
from trainer.data.scenes import write_scenes
from trainer.files.run_folder import environment
from trainer.models import build_model
from trainer.training import sources

STUDY: dict[str, Any] = {
    "name": "truth",
    "base": {
        "data": {"name": "cityscapes", "size": [32, 64]},
        "student": {"name": "segformer_tiny", "init": "BACKBONE"},
        "teacher": {"name": "segformer_mini", "train": {"epochs": 1, "init": "scratch"}},
        "optim": {"epochs": 1, "global_batch": 2, "norm_batch": 1},
        "distill": {"csf": {}},
    },
    "variants": {"from a file": {"distill": {}}, "from scratch": {"distill": {}, "student.init": "scratch"}, "csf": {}},
    "seeds": 2,
}
GPU = {"address": "auto", "gpus_per_worker": 1, "concurrency": 1}
RUNS = 7


class Lab:
    """A data set in a folder, weights in a file, a study of both, and a store in which all its runs have finished."""

    def __init__(self, folder, *, made=False):
        self.folder = folder
        self.data, self.weights = folder / "data", folder / "backbone.pt"
        self.file, self.spec = folder / "truth.yaml", folder / "gpus.yaml"
        self.store = Store(folder / "store")
        if made:
            return
        write_scenes(self.data, train=2, val=1, seed=0, size=(32, 64))
        student = build_model(parse({"student": {"name": "segformer_tiny"}}).student, 19)
        torch.save({"model": student.state_dict()}, self.weights)
        self.write()
        self.spec.write_text(yaml.safe_dump(GPU))
        self.finish()

    def write(self, **changes):
        """The study's file, with other top-level keys."""
        text = yaml.safe_dump({**STUDY, **changes}, sort_keys=False)
        self.file.write_text(text.replace("BACKBONE", str(self.weights)))

    def launch(self) -> Launch:
        """`transkd run` up to where it would start something."""
        found = Launch(load(str(self.file)), load_spec(str(self.spec)), self.store, {"cityscapes": self.data})
        found.prepare(lambda text: None)
        return found

    def finish(self):
        """Record, of all that is to be trained now, that it has finished, as a driver and its runs do."""
        launch = self.launch()
        begin("truth", self.file.read_text(), launch.ledger, self.store, launch.sources)
        on = environment("cuda:0", "A GPU", launch.spec.torch_threads, 1) | {"numerics": launch.sources.numerics}
        for run in to_train(launch.state, launch.state.runs):
            (prints,) = launch.sources.data.values()
            job = launch.job(run)
            last = {"epoch": 1.0, "val/miou": 50.0 + run.plan.seed, "seconds": 60.0}
            launch.ledger.append(job.event("started", config=run.plan.config.model_dump(mode="json")))
            launch.ledger.append({"event": "epoch", "run_id": run.run_id, "metrics": last})
            facts = {"last": last, "data": dict(zip(("train", "val"), prints, strict=True)), "environment": on}
            facts["weights"] = {}
            if run.plan.config.student.init != "scratch":
                sha256 = launch.sources.weights[run.plan.config.student.init]
                facts["weights"]["student"] = {"file": str(self.weights), "sha256": sha256}
            if run.plan.needs is not None:
                taught = {"file": str(job.place.teacher), "sha256": "", "run_id": job.place.teacher.parent.name}
                facts["weights"]["teacher"] = taught
            launch.ledger.append(job.event("finished", **facts))


@pytest.fixture(scope="module")
def _made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    made = Lab(folder / "lab")
    shutil.copytree(made.folder, folder / "kept")
    return made


@pytest.fixture
def lab(_made, monkeypatch):
    """The lab as it was made, where it was made: weights are named, and packed data is known, by their paths. And
    screens that are wide enough for a row of the plan."""
    monkeypatch.setenv("COLUMNS", "200")
    shutil.rmtree(_made.folder)
    shutil.copytree(_made.folder.with_name("kept"), _made.folder)
    return Lab(_made.folder, made=True)


@pytest.fixture
def planned(lab, capsys):
    """planned(*folders, **options) -> the states that `transkd plan` lists and the lines it prints."""

    def ask(*folders, hours=None):
        capsys.readouterr()
        plan(str(lab.file), lab.store.root, str(lab.spec), list(map(str, folders)), None, hours, False)
        lines = capsys.readouterr().out.splitlines()
        rows = [found[1] for line in lines if (found := re.search(r" [0-9a-f]{12}  +(\w+( \w+)?) *$", line))]
        return Counter(rows), lines

    return ask


def pixel(lab, monkeypatch):
    path = sorted((lab.data / "leftImg8bit" / "val").rglob("*.png"))[0]
    image = np.array(Image.open(path))
    image[0, 0, 0] ^= 1
    Image.fromarray(image).save(path)


def weight(lab, monkeypatch):
    state = torch.load(lab.weights, weights_only=True)
    state["model"]["patch_embed1.proj.bias"][0] += 1
    torch.save(state, lab.weights)


def numerics(lab, monkeypatch):
    for module in (sources, jobs, plan_verb):
        monkeypatch.setattr(module, "NUMERICS_VERSION", NUMERICS_VERSION + 1)


def assert_refused(planned, lab, hours=1.0e-4):
    """`plan` and `run` both refuse the study, for the hours of GPUs that it may take."""
    refusal = rf"^--max-gpu-hours {hours:g}: truth may take 0\.\d+ GPU-hours"
    with pytest.raises(UserError, match=refusal):
        planned(lab.data, hours=hours)
    launch = lab.launch()
    with pytest.raises(UserError, match=refusal):
        refuse(estimate(launch.state, launch.spec, lab.store, {}), "truth", launch.spec, hours)


def assert_free(planned, lab):
    """Neither `plan` nor `run` refuses the study, whatever the hours that are allowed."""
    planned(lab.data, hours=0.0)
    launch = lab.launch()
    refuse(estimate(launch.state, launch.spec, lab.store, {}), "truth", launch.spec, 0.0)


@pytest.mark.slow
def test_a_finished_study_is_reused_and_costs_nothing(lab, planned):
    states, lines = planned(lab.data)
    assert states == {"reused": RUNS}
    assert lines[0] == f"truth   {RUNS} runs, {RUNS} reused, 0 epochs to train"
    assert lines[-1] == "estimate: nothing is left to run"
    assert count_left(lab.launch().state) == 0
    assert_free(planned, lab)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        (pixel, {"unchecked": RUNS}, {"new": RUNS}),
        (weight, {"reused": 3, "new": 4}, {"reused": 3, "new": 4}),
        (numerics, {"new": RUNS}, {"new": RUNS}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_plan_calls_nothing_reused_that_a_run_would_train(lab, planned, monkeypatch, change, before, after):
    change(lab, monkeypatch)
    states, lines = planned(lab.data)
    assert states == before
    unchecked = [line for line in lines if line.startswith("not checked: ")]
    assert unchecked == (
        [
            f"not checked: {RUNS} runs whose config has finished before: the data of cityscapes has not been packed on "
            "this machine yet, or has changed since; counted as to run"
        ]
        if "unchecked" in before
        else []
    )
    assert count_left(lab.launch().state) == RUNS - states["reused"]
    assert planned(lab.data)[0] == after, "run has packed the data"
    assert_refused(planned, lab)
    lab.finish()
    assert planned(lab.data)[0] == {"reused": RUNS}
    assert_free(planned, lab)


def test_a_plan_without_the_data_says_what_it_could_not_check_and_counts_it(lab, planned):
    states, lines = planned()
    assert states == {"unchecked": RUNS}
    assert lines[0] == f"truth   {RUNS} runs, 0 reused, {RUNS} epochs to train"
    assert (
        f"not checked: {RUNS} runs whose config has finished before: the folder of cityscapes is not given "
        "(--data-root FOLDER); counted as to run"
    ) in lines
    with pytest.raises(UserError, match=r"^--max-gpu-hours 0\.0001: truth may take "):
        planned(hours=1.0e-4)


@pytest.mark.slow
def test_a_plan_without_the_weights_says_so_of_the_runs_that_start_from_them(lab, planned):
    lab.weights.unlink()
    states, lines = planned(lab.data)
    assert states == {"reused": 3, "unchecked": 4}
    assert (
        f"not checked: 4 runs whose config has finished before: no such weights here: {lab.weights}; counted as to run"
    ) in lines


def test_data_at_another_place_is_unchecked_until_it_is_packed(lab, planned):
    lab.data = shutil.copytree(lab.data, lab.data.with_name("copy"))
    assert planned(lab.data)[0] == {"unchecked": RUNS}
    assert count_left(lab.launch().state) == 0
    assert planned(lab.data)[0] == {"reused": RUNS}


def test_a_larger_study_reuses_what_there_is_and_pays_for_the_rest(lab, planned):
    lab.write(seeds=3)
    assert planned(lab.data)[0] == {"reused": RUNS, "new": 3}
    assert count_left(lab.launch().state) == 3
    assert_refused(planned, lab)


def test_another_study_of_the_same_runs_reuses_them(lab, planned):
    lab.write(name="truth2")
    assert planned(lab.data)[0] == {"reused": RUNS}
    assert count_left(lab.launch().state) == 0


OWN = {"optim.lr": 3.0e-3, "optim.weight_decay": 0.02}
ARMS = {
    "alone": {"distill": {}, "student.init": "scratch", **OWN},
    "own settings": OWN,
    "own batch": {"optim.global_batch": 1, **OWN},
    "own teacher": {"teacher.train": {"epochs": 1, "lr": 1.0e-3}, **OWN},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "value", "others"), [("lr", 2.0e-3, {"own teacher"}), ("weight_decay", 0.1, set())]
)
def test_equal_arms_are_reused_only_where_the_base_trains_the_same_teacher(lab, planned, setting, value, others):
    """Two studies whose bases differ in one setting, which all arms set: their configs are equal, and the rate of
    `own teacher` is in its recipe."""
    lab.write(variants=ARMS)
    lab.finish()
    first = {run.plan.key: run.run_id for run in lab.launch().state.runs}
    base = {**STUDY["base"], "optim": {**STUDY["base"]["optim"], setting: value}}
    lab.write(name="second", variants=ARMS, base=base)
    launch = lab.launch()
    arms = [run for run in launch.state.runs if run.plan.role == "arm"]
    assert len(arms) == 8 and {run.plan.key for run in arms} < first.keys()
    reused = {"alone", *others}
    assert {run.plan.arm for run in arms if run.finished} == reused
    for run in launch.state.runs:
        assert run.finished is (first.get(run.plan.key) == run.run_id)
    count = 2 * len(reused) + len(others)
    assert count_left(launch.state) == 10 - count
    assert planned(lab.data)[0] == {"reused": count, "new": 10 - count}

    lab.write(variants=ARMS, base=base)
    told = lab.launch().state.uncounted()
    untaught = [arm for arm in ARMS if arm not in reused]
    assert told == [f"Not counted: 2 of 2 seeds are of another teacher: {', '.join(untaught)}."]


def test_a_run_that_can_only_fail_again_is_neither_trained_nor_paid_for(lab, planned):
    lab.write(seeds=3)
    launch = lab.launch()
    for run in to_train(launch.state, launch.state.runs):
        launch.ledger.append(launch.job(run).event("failed", cause="nan", reason="loss/ce is nan at step 1"))
    assert planned(lab.data)[0] == {"reused": RUNS, "failed": 3}
    assert count_left(lab.launch().state) == 0
    assert_free(planned, lab)
    launch.refresh()
    with_them = estimate(launch.state, launch.spec, lab.store, {}, retry_failed=True)
    assert with_them.count == 3, "with --retry-failed they are trained"


@pytest.mark.slow
def test_the_table_and_the_bundle_count_the_runs_of_the_data_that_was_read_last(lab, monkeypatch, tmp_path, capsys):
    pixel(lab, monkeypatch)
    launch = lab.launch()
    begin("truth", lab.file.read_text(), launch.ledger, lab.store, launch.sources)
    capsys.readouterr()
    report(str(lab.file), lab.store.root, None, tmp_path / "report")
    said = capsys.readouterr().out
    assert re.search(r"^from scratch  +0/2 ", said, re.M)
    assert "not counted: finished runs of other data, weights or numerics" in said
    bundle(str(lab.file), lab.store.root, None, tmp_path / "truth.tar.gz")
    capsys.readouterr()
    report(str(tmp_path / "truth.tar.gz"), None, None, tmp_path / "of the bundle")
    assert capsys.readouterr().out == said
    assert (tmp_path / "of the bundle" / "table.csv").read_bytes() == (tmp_path / "report" / "table.csv").read_bytes()
