"""What a study will take: the ledger's paces, the clock of so many runs at once, the refusal."""

import json
import socket

import pytest
import yaml

from ablations.study.plan import expand
from cluster.spec import ClusterSpec
from orchestrator.prepare import estimate as module
from orchestrator.prepare.estimate import START_S, refuse
from orchestrator.prepare.jobs import Preparer
from orchestrator.prepare.pace import measured_paces, structure, this_hardware
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.terminal.cost import estimate_lines
from tests.orchestrator.prepare.earlier_runs import ARMS, AROUND, BASE, CPU, GPU, SECONDS, make, of, record, searching
from trainer.config import UserError

LENGTHS_AND_PATHS = {
    "optim.epochs": {"choice": [3, 300]},
    "distill": {"choice": {"alone": {}, "csf": {"csf": {}}}},
}


def test_the_most_is_every_trial_of_the_slowest_structure_at_full_length(store):
    record(store, make(seeds=1), CPU)
    found = of(searching(LENGTHS_AND_PATHS), store, CPU).device_hours.times(3600)
    assert found.most == pytest.approx(10 * (300 * SECONDS["csf"] + AROUND))
    assert found.least == pytest.approx(10 * (3 * SECONDS["student alone"] + AROUND))
    assert found.least < found.likely < found.most
    grid = of(searching(LENGTHS_AND_PATHS, {"trials": 4, "sampler": "grid"}), store, CPU).device_hours.times(3600)
    assert grid == pytest.approx([(3 + 300) * (SECONDS["csf"] + SECONDS["student alone"]) + 4 * AROUND] * 3)


def test_what_decides_the_pace_and_what_does_not():
    config = expand(make())[-1].config
    optim = config.optim
    for same in (
        {"seed": 7},
        {"optim": optim.model_copy(update={"lr": 0.5, "epochs": 3})},
        {"distill": {"csf": config.distill["csf"].model_copy(update={"weight": 3.0})}},
    ):
        assert structure(config.model_copy(update=same)) == structure(config)
    for other in (
        {"optim": optim.model_copy(update={"global_batch": 16})},
        {"distill": {}},
        {"data": config.data.model_copy(update={"size": (96, 128)})},
        {"eval": config.eval.model_copy(update={"every": 2})},
        {"student": config.student.model_copy(update={"name": "segformer_b0"})},
    ):
        assert structure(config.model_copy(update=other)) != structure(config)


@pytest.mark.slow
def test_hours_are_those_that_earlier_runs_took(store):
    study = make(seeds=4)
    record(store, study, GPU, name="A GPU")
    found = of(study, store, GPU)
    # left: three seeds of 10 s and three of 20 s of epochs, and what is around them; one GPU each, two at once
    assert found.device_hours == pytest.approx([(3 * 17 + 3 * 27) / 3600] * 3)
    # in their order and wherever a place is free: 17+17+17 ends at 51 beside 27, 27, 27: 17, 27 | 34, 54 | 51, 81
    assert found.hours == pytest.approx([(START_S + 27 + 17 + 27) / 3600] * 3, abs=12 / 3600)
    assert found.gigabytes == pytest.approx([6 * 1.5e-3] * 3)
    assert found.origins == ("3 earlier runs on cuda (A GPU)",)
    line = estimate_lines(found, GPU)[0]
    assert "2 runs at once; 0.037 GPU-hours; 0.11 at 3 a GPU-hour; 0.009 GB on disk" in line


@pytest.mark.slow
def test_the_clock_lets_the_next_run_begin_where_one_has_ended(store):
    study = make(seeds=4)
    record(store, study, CPU)
    alone, two, many = (
        of(study, store, CPU.model_copy(update={"concurrency": n})).hours.most * 3600 for n in (1, 2, 99)
    )
    assert alone == pytest.approx(START_S + 3 * 17 + 3 * 27)
    assert two == pytest.approx(START_S + 17 + 27 + 27, abs=1e-6) or two == pytest.approx(START_S + 78, abs=1e-6)
    assert many == pytest.approx(START_S + 27)


@pytest.mark.slow
def test_another_study_of_the_same_structure_tells_too_and_old_ledgers_by_the_plan(store):
    record(store, make(), CPU)
    faster = {**BASE, "optim": {**BASE["optim"], "lr": 5.0e-3, "epochs": 20}}
    other = of(make(name="t", base=faster, seeds=1), store, CPU)
    # its teacher is another run, for it learns by another rate, of the same pace
    assert other.device_hours.most * 3600 == pytest.approx(4 * 5 + 7 + 20 * 1 + 7 + 20 * 2 + 7)
    record(old := Store(store.root.parent / "old"), make(), CPU, config=False)
    assert of(make(), old, CPU).device_hours is not None
    assert of(make(name="t", base=faster), old, CPU).device_hours is None


@pytest.mark.parametrize(
    ("spec", "recorded", "counts"),
    [
        (ClusterSpec(), {}, True),
        (ClusterSpec(), {"processor": "another CPU"}, False),
        (CPU, {"processor": "another CPU"}, True),
        (ClusterSpec(threads=2), {}, False),
        (ClusterSpec(workers=2, cpus_per_worker=0.5), {}, False),
        (GPU, {}, False),
    ],
    ids=["here", "another CPU", "elsewhere", "threads", "workers", "GPU"],
)
def test_only_like_hardware_counts(store, spec, recorded, counts):
    record(store, make(), ClusterSpec(), **recorded)
    paces, count, where = measured_paces(Ledger(store.ledger), store, spec, {})
    assert (count == 3) is counts
    assert len(paces) == count
    assert not counts or where


def test_without_a_pace_there_is_no_time_and_it_is_said_why(store):
    found = of(make(), store, CPU)
    assert found.hours is found.device_hours is found.gigabytes is None
    assert estimate_lines(found, CPU) == [
        "no estimate of time: no earlier run of 3 of 3 structures; without --no-probe a few steps of each are tried"
    ]


@pytest.mark.slow
def test_the_limit_is_held_against_the_most(store):
    study = make(seeds={"looks": [2, 4], "until": "decided"})
    record(store, study, GPU, name="A GPU")
    found = of(study, store, GPU)
    assert found.device_hours.least < found.device_hours.most
    refuse(found, "s", GPU, found.device_hours.most)
    with pytest.raises(UserError, match=r"^--max-gpu-hours 0.03: s may take 0.0367 GPU-hours, .*; raise the limit"):
        refuse(found, "s", GPU, 0.03)
    refuse(of(make(name="t"), store, CPU), "t", CPU, 0.0)  # runs without GPUs take no hour of one


@pytest.mark.slow
@pytest.mark.usefixtures("_no_gpu")
def test_a_limit_that_nobody_can_judge_refuses(store):
    found = of(make(), store, GPU, tries=None)
    assert found.gigabytes is not None, "what it keeps is known all the same"
    with pytest.raises(UserError, match=r"cannot be estimated: there is no earlier run on such a GPU, and this"):
        refuse(found, "s", GPU, 100)


@pytest.fixture
def _no_gpu():
    if this_hardware(GPU):
        pytest.skip("a GPU is here")


def test_what_time_did_not_suffice_for_is_taken_as_the_slowest(store, monkeypatch):
    study = make(variants={f"lr {i}": {"data.size": [64, 64 + 32 * i]} for i in range(5)}, seeds=1)
    names = list(dict.fromkeys(structure(run.config) for run in expand(study)))
    known = {name: module.Pace(float(i), 0.0, 1.0, 0.0) for i, name in enumerate(names[:4])}
    unknown = {name: module.Pace(None, 0.0, 1.0, 0.0) for name in names[4:]}
    filled, guessed = module._filled({**known, **unknown})
    assert guessed == len(names) - 4
    assert {filled[name].epoch_s for name in names[4:]} == {3.0}
    assert module._filled({**unknown, names[0]: known[names[0]]})[1] == 0, "one structure stands for no other"


def test_a_study_that_is_done_takes_nothing(store):
    study = make(seeds=1)
    record(store, study, CPU)
    found = of(study, store, CPU)
    assert estimate_lines(found, CPU) == ["estimate: nothing is left to run"]
    refuse(found, "s", GPU, 0.0)


@pytest.mark.slow
def test_ranges_in_words(store):
    study = make(seeds={"looks": [2, 4], "until": "decided"})
    record(store, study, CPU)
    found = of(study, store, CPU)
    assert estimate_lines(found, CPU)[0].startswith("estimate: 42 s to 96 s, 2 runs at once; 0.012 to 0.037 CPU-hours")


@pytest.mark.slow
def test_plan_and_run_refuse_before_anything_starts(driver, tmp_path):
    study = make()
    store = Store(driver.store)
    record(store, study, GPU, name="A GPU", id_of=Preparer("s", GPU, store, {}).reader.run_id)
    file, spec = tmp_path / "s.yaml", tmp_path / "gpus.yaml"
    file.write_text(yaml.safe_dump({"name": "s", "base": BASE, "variants": ARMS, "seeds": 2}))
    with socket.create_server(
        ("127.0.0.1", 0)
    ) as answering:  # an address that answers: the refusal comes before joining
        address = f"127.0.0.1:{answering.getsockname()[1]}"
        spec.write_text(yaml.safe_dump({"address": address, "gpus_per_worker": 1, "concurrency": 1}))
        for verb in ("plan", "run"):
            done = driver.here(verb, file, "--cluster", spec, "--max-gpu-hours", 0.01)
            assert done.code == 2
            assert "--max-gpu-hours 0.01: s may take 0.0122 GPU-hours" in done.err
            *rest, error = done.err.splitlines()
            assert error.startswith("error: ")
            assert all(line.startswith("timing a few training steps") for line in rest)
    assert driver.here("plan", file, "--cluster", spec, "--max-gpu-hours", 1).code == 0
    assert [json.loads(line)["event"] for line in store.ledger.read_text().splitlines()].count("started") == 3
