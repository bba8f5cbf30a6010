"""What a study will take: its phases in order, the ledger's paces, the clock of so many runs at once, the refusal."""

import json
import random

import pytest
import yaml

from ablations.study.early_stopping import passes_median, passes_rung
from ablations.study.plan import expand
from ablations.study.schema import Study
from ablations.study.search import Search
from cluster.spec import ClusterSpec
from orchestrator.prepare import estimate as module
from orchestrator.prepare.cohort_costs import CohortCosts, Planned
from orchestrator.prepare.estimate import START_S, estimate, refuse
from orchestrator.prepare.jobs import Preparer
from orchestrator.prepare.machine_hours import machine_hours, types_of
from orchestrator.prepare.pace import measured_paces, structure, this_hardware
from orchestrator.prepare.work_left import DRAWS, MOST_STRUCTURES, Range, phases, trial_epochs
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.terminal.cost import estimate_lines
from orchestrator.terminal.plan_listing import epochs_to_train
from trainer.config import UserError
from trainer.files.run_folder import environment

BASE = {
    "data": {"name": "scenes", "size": [64, 128], "select": 0.1},
    "student": {"name": "segformer_tiny"},
    "teacher": {"name": "segformer_mini", "train": {"epochs": 4}},
    "optim": {"lr": 1.0e-3, "epochs": 10, "global_batch": 8, "norm_batch": 4},
    "distill": {"csf": {}},
}
ARMS = {"student alone": {"distill": {}}, "csf": {}}
GPU = ClusterSpec(address="auto", gpus_per_worker=1, cpus_per_worker=2, concurrency=2, price_per_gpu_hour=3.0)
CPU = ClusterSpec(address="auto", concurrency=2)
SECONDS = {"segformer_mini": 5.0, "student alone": 1.0, "csf": 2.0}
"""Of an epoch, in the ledgers below."""
AROUND = 7.0
"""Seconds of a run that are no epoch's."""


def make(**changes):
    return Study.model_validate({"name": "s", "base": BASE, "variants": ARMS, "seeds": 2, **changes})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def record(store, study, spec, *, names=("student alone", "csf"), name="", processor="", config=True, id_of=None):
    """Finish seed 0 of the arms named, and the teacher, as on the spec's device; the run ids, invented unless `id_of`
    gives those of configs."""
    ledger, found = Ledger(store.ledger), []
    device = "cuda:0" if spec.gpus_per_worker else "cpu"
    on = environment(device, name, spec.torch_threads, spec.workers)
    on |= {"processor": processor} if processor else {}
    for run in expand(study):
        if run.seed or run.arm not in (*names, "teacher segformer_mini"):
            continue
        run_id = id_of(run.config) if id_of else f"r{len(ledger.outcomes())}"
        who = {"run_id": run_id, "key": run.key, "study": study.name, "arm": run.arm, "seed": 0}
        asked = {"config": run.config.model_dump(mode="json")} if config else {}
        ledger.append({"event": "started", "time": "2026-01-01T00:00:00.000+00:00", **who, **asked})
        epochs, pace = run.config.optim.epochs, SECONDS.get(run.arm, SECONDS["segformer_mini"])
        for epoch in range(1, epochs + 1):
            metrics = {"epoch": epoch, "val/miou": 1.0, "seconds": pace}
            ledger.append({"event": "epoch", "run_id": who["run_id"], "metrics": metrics})
        end = f"2026-01-01T00:{(epochs * pace + AROUND) // 60:02.0f}:{(epochs * pace + AROUND) % 60:02.0f}.000+00:00"
        ledger.append({"event": "finished", "time": end, **who, "last": metrics, "environment": on})
        folder = store.run_dir(who["run_id"])
        folder.mkdir(parents=True)
        (folder / "last.pt").write_bytes(bytes(1_000_000))
        (folder / "best.pt").write_bytes(bytes(500_000))
        found.append(who["run_id"])
    return found


def of(study, store, spec, **options):
    return estimate(StudyState(study, Ledger(store.ledger)), spec, store, {}, **{"tries": False, **options})


def test_what_is_left_comes_in_the_order_in_which_it_waits(store):
    study = make()
    teacher, arms = phases(StudyState(study, Ledger(store.ledger)))
    assert [run.epochs.most for run in teacher.runs] == [4]
    assert [run.epochs for run in arms.runs] == [Range(10, 10, 10)] * 4
    record(store, study, CPU)
    (arms,) = phases(StudyState(study, Ledger(store.ledger)))
    assert [run.config.seed for run in arms.runs] == [1, 1]


def test_a_run_that_a_kill_ended_has_its_last_epochs_left_and_one_that_failed_all(store):
    study, ledger = make(), Ledger(store.ledger)
    who = {
        run.label: {"run_id": f"r{n}", "key": run.key, "study": "s", "arm": run.arm, "seed": run.seed}
        for n, run in enumerate(expand(study))
    }
    for label, epochs, end in (
        ("csf seed 0", 7, None),
        ("csf seed 1", 10, "interrupted"),
        ("student alone seed 0", 3, "failed"),
    ):
        ledger.append({"event": "started", **who[label]})
        ledger.append_epochs(who[label]["run_id"], [{"epoch": n, "val/miou": 1.0} for n in range(1, epochs + 1)])
        if end:
            ledger.append({"event": end, **who[label], "cause": "lost"})
    state = StudyState(study, Ledger(store.ledger))
    _, arms = phases(state, retry_failed=True)
    left = {f"{'csf' if run.config.active else 'alone'} {run.config.seed}": run for run in arms.runs}
    assert {name: run.epochs.most for name, run in left.items()} == {
        "csf 0": 3,
        "csf 1": 1,
        "alone 0": 10,
        "alone 1": 10,
    }
    assert {name: run.done for name, run in left.items()} == {"csf 0": 7, "csf 1": 9, "alone 0": 0, "alone 1": 0}
    assert {bool(run.teacher) for run in arms.runs if run.config.active} == {True}
    assert epochs_to_train(state, [run for run in state.runs if not run.finished]) == "28 epochs"


def test_teachers_of_one_name_have_a_pace_each(store):
    study = make(variants={"small": {}, "large": {"data.size": [128, 256]}})
    teachers, _ = phases(StudyState(study, Ledger(store.ledger)))
    assert {run.structure for run in teachers.runs} == {structure(run.config) for run in teachers.runs}
    assert len({run.structure for run in teachers.runs}) == 2


def test_later_looks_may_never_come(store):
    study = make(seeds={"looks": [4, 6, 9], "until": "decided"})
    _, *looks = phases(StudyState(study, Ledger(store.ledger)))
    assert [len(look.runs) for look in looks] == [8, 4, 6]
    assert [{run.epochs.least for run in look.runs} for look in looks] == [{10}, {0}, {0}]
    assert {run.epochs.most for look in looks for run in look.runs} == {10}


def test_every_tuned_variant_searches_before_its_seeds(store):
    base = {**BASE, "optim": {**BASE["optim"], "epochs": 9}}
    tune = {"trials": 5, "stop": "asha", "space": {"distill.csf.weight": {"log": [0.1, 10.0]}}}
    study = make(base=base, tune_each=tune)
    _, search, arms = phases(StudyState(study, Ledger(store.ledger)))
    assert len(search.runs) == 5
    assert len(arms.runs) == 4
    assert all("csf" in run.config.active and run.epochs.most == 9 for run in search.runs)


def test_a_batch_bounds_what_a_deterministic_search_runs_at_once(store):
    search = {"trials": 6, "deterministic": True, "batch": 3, "space": {"optim.lr": {"log": [1.0e-4, 1.0e-2]}}}
    _, trials = phases(StudyState(make(variants=None, search=search, seeds=1), Ledger(store.ledger)))
    assert (trials.at_once, len(trials.runs)) == (3, 6)


def searching(space, words=(), **changes):
    return make(variants=None, seeds=1, search={"trials": 10, "space": space, **dict(words)}, **changes)


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


def test_a_structure_that_no_draw_has_is_asked_for_too(store):
    names = [f"segformer_b{i}" for i in range(6)] + ["segformer_tiny", "segformer_mini"]
    study = searching({"student.name": {"choice": names}})
    todo = phases(StudyState(study, Ledger(store.ledger)))
    assert {run.config.student.name for run in todo[-1].possible} == set(names)
    assert {run.config.student.name for run in todo[-1].runs} < set(names)
    assert of(study, store, CPU).why.startswith("no earlier run of 9 of 9 structures"), "the teacher's, and all these"


BOTH = {"base": {**BASE, "distill": {"csf": {}, "pea": {}}}, "requires": {"distill.pea": ["distill.csf"]}}


@pytest.mark.parametrize(
    ("space", "more", "structures"),
    [
        ({"optim.lr": {"log": [1.0e-4, 1.0e-2]}, "distill.csf.weight": {"log": [0.1, 1.0]}}, {}, {1}),
        (
            {
                "distill.csf.weight": {"choice": [0.0, 1.0]},
                "distill.csf.options.norm": {"choice": ["layer", "reference"]},
            },
            {},
            {3},
        ),
        # csf's absence contradicts the pea of the base, until that is absent too
        ({"distill.csf": {"choice": [None, {}]}, "distill.pea": {"choice": [None, {}]}}, BOTH, {3}),
        (
            {"optim.global_batch": {"choice": [4 * k for k in range(1, 80)]}},
            {},
            range(MOST_STRUCTURES, MOST_STRUCTURES + DRAWS + 1),
        ),
    ],
    ids=["one", "conditional", "contradictory", "too many"],
)
def test_the_structures_that_a_trial_can_have(store, space, more, structures):
    study = searching(space, **more)
    *_, search = phases(StudyState(study, Ledger(store.ledger)))
    assert len({run.structure for run in search.possible}) in structures


def test_the_epochs_of_a_trial_lie_between_the_first_rung_and_all():
    space = {"optim.lr": {"log": [1.0e-4, 1.0e-2]}}
    assert trial_epochs(Search(trials=20, space=space), 27, 20) == (27, 27, 27)
    asha = trial_epochs(Search(trials=20, space=space, stop="asha"), 27, 20)
    assert asha.least == 1 + 26 / 20, "one goes on to the end"
    assert asha.most == 27
    assert asha.least < asha.likely < 27
    median = trial_epochs(Search(trials=20, space=space, stop="median", min_epochs=3), 27, 20)
    assert median.least == pytest.approx((5 * 27 + 15 * 3) / 20)


@pytest.mark.parametrize("words", [{"stop": "asha"}, {"stop": "asha", "brackets": 2}, {"stop": "median"}], ids=str)
def test_trials_are_likely_to_train_what_the_rules_let_them(words):
    search = Search(trials=30, space={"optim.lr": {"log": [1.0e-4, 1.0e-2]}}, **words)
    rng, spent = random.Random(1), 0
    for _ in range(40):
        scores = [rng.random() for _ in range(30)]
        curves = {bracket: [] for bracket in range(search.brackets)}
        for number, score in enumerate(scores):
            bracket, curve = search.bracket(number), {}
            others, rungs = curves[bracket], search.rungs(27, bracket)
            for epoch in range(1, 28):
                curve[epoch] = score
                at_rung = [other[epoch] for other in others if epoch in other]
                if epoch in rungs and not passes_rung(score, at_rung, search.eta):
                    break
                whole = [other for other in others if 27 in other]
                by_median = search.stop == "median" and search.min_epochs <= epoch < 27
                if by_median and not passes_median(curve, epoch, whole):
                    break
            others.append(curve)
            spent += len(curve)
    assert trial_epochs(search, 27, 30).likely == pytest.approx(spent / (40 * 30), rel=0.2)


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
    spec.write_text(yaml.safe_dump({"address": "auto", "gpus_per_worker": 1, "concurrency": 1}))
    for verb in ("plan", "run"):
        done = driver.here(verb, file, "--cluster", spec, "--max-gpu-hours", 0.01)
        assert done.code == 2
        assert "--max-gpu-hours 0.01: s may take 0.0122 GPU-hours" in done.err
        *rest, error = done.err.splitlines()
        assert error.startswith("error: ")
        assert all(line.startswith("timing a few training steps") for line in rest)
    assert driver.here("plan", file, "--cluster", spec, "--max-gpu-hours", 1).code == 0
    assert [json.loads(line)["event"] for line in store.ledger.read_text().splitlines()].count("started") == 3


PATHS = {"csf": {}, "pea": {"distill": {"pea": {}}}, "both": {"distill": {"csf": {}, "pea": {}}}}


@pytest.mark.slow
def test_runs_that_share_their_teacher_pay_once_for_it(store):
    study = make(variants=PATHS)
    record(store, study, CPU, names=PATHS)
    one = CPU.model_copy(update={"concurrency": 1})
    apart = of(study, store, one.model_copy(update={"cohort": "off"}))
    together = of(study, store, one)
    check = Preparer("s", one, store, {}).check
    share = CohortCosts(check).teacher_share(expand(study)[-1].config)
    longest = 10 * SECONDS["segformer_mini"] + AROUND
    assert apart.hours.likely * 3600 == pytest.approx(START_S + 2 * longest + 10 * SECONDS["csf"] + AROUND)
    saved = share * (longest + 10 * SECONDS["csf"] + AROUND)
    assert 0.2 < share < 0.9
    assert together.hours.likely * 3600 == pytest.approx(apart.hours.likely * 3600 - saved)
    assert together.device_hours.most * 3600 == pytest.approx(apart.device_hours.most * 3600 - saved)
    assert (together.cohorts, apart.cohorts) == ((3,), ())
    assert estimate_lines(together, one)[1] == " 3 runs in 1 cohort of 3, one teacher pass"
    assert not any("cohort" in line for line in estimate_lines(apart, one))
    three = of(study, store, CPU.model_copy(update={"concurrency": 3}))
    assert three.cohorts == (), "with a slot for each none shares"


def test_the_pace_of_a_run_in_a_cohort_is_told_as_that_of_a_run_alone(store):
    study = make(variants=PATHS, seeds=1)
    record(store, study, CPU, names=PATHS)
    config = expand(study)[-1].config
    alone, _, _ = measured_paces(Ledger(store.ledger), store, CPU, {}, lambda config: 0.5)
    for run_id, run in Ledger(store.ledger).outcomes().items():
        last = dict(run.last) | {"system/process_memory_usage_megabytes": 800.0}
        end = {"environment": {**run.environment, "cohort": 4}, "last": last}
        Ledger(store.ledger).append({"event": "finished", "run_id": run_id, **end})
    shared, _, _ = measured_paces(Ledger(store.ledger), store, CPU, {}, lambda config: 0.5)
    name = structure(config)
    # with half an epoch the teacher's, a run that paid a quarter of that took 5/8 of what it takes alone
    assert shared[name].epoch_s == pytest.approx(alone[name].epoch_s * 8 / 5)
    assert (alone[name].once_s, shared[name].once_s) == (AROUND, 0.0), "its process was not its own"
    assert shared[name].memory == 800e6


def test_memory_bounds_a_cohort_where_that_of_one_run_is_known():
    runs = [Planned(run.label, run.config) for run in expand(make(variants=PATHS, seeds=1)) if run.role == "arm"]

    def cohorts(memory):
        costs = CohortCosts(lambda config: {"gmacs": 1.0, "params_m": 1.0}, memory=memory)
        costs.paces = {structure(run.config): module.Pace(1.0, 0.0, 0.0, memory=1e9) for run in runs}
        return [len(cohort) for cohort in costs.cohorts(runs, 1, 16)]

    assert cohorts(None) == cohorts(4e9) == [3]
    assert cohorts(1.14e9) == [2, 1], "a second student of a million parameters, and no third"
    assert cohorts(1.1e9) == [1, 1, 1]


def test_machines_hours_and_money_are_told_by_machine_type(store):
    """The arms train side by side, each on the machines that are started for it."""
    types = {
        "small": {"cpus": 1, "most": 4, "price_per_hour": 360},
        "large": {"cpus": 4, "most": 1, "price_per_hour": 720},
        "gpu": {"cpus": 4, "gpus": 1, "most": 1, "price_per_hour": 9999},
    }
    spec = ClusterSpec(address="auto", machine_types=types, overrides={"csf": {"cpus_per_worker": 2}})
    record(store, make(), CPU)
    found = of(make(), store, spec)
    alone, csf = 10 * SECONDS["student alone"] + AROUND, 10 * SECONDS["csf"] + AROUND
    assert found.hours.likely == pytest.approx((START_S + max(alone, csf)) / 3600)
    assert found.device_hours.likely == pytest.approx((alone + 2 * csf) / 3600)
    _, small, large, *_ = estimate_lines(found, spec)
    assert small == f" small: 1 machine at most, {alone / 3600:.2g} machine-hours; {alone / 10:.2g} at 360 an hour"
    assert large == f" large: 1 machine at most, {csf / 3600:.2g} machine-hours; {csf / 5:.2g} at 720 an hour"


def test_runs_that_share_a_machine_share_its_hours(store):
    record(store, make(seeds=5), CPU)
    types = {"small": {"cpus": 2, "most": 1}, "large": {"cpus": 3, "most": 9}}
    spec = ClusterSpec(address="auto", cohort="off", machine_types=types)
    found = machine_hours(of(make(seeds=5), store, spec).shares, spec.machine_types)
    hours = 4 * (10 * SECONDS["student alone"] + 10 * SECONDS["csf"] + 2 * AROUND) / 3600
    assert {name: need.machines for name, need in found.items()} == {"small": 1, "large": 2}, "8 runs: 2 and 3 + 3"
    assert sum(need.hours.likely for need in found.values()) == pytest.approx(hours * 3 / 8)
    assert {need.price for need in found.values()} == {None}


def test_the_one_type_of_an_autoscaler_is_named_by_its_size():
    spec = ClusterSpec(
        address="auto",
        gpus_per_worker=1,
        max_gpus=8,
        max_cpus=20,
        cpus_per_machine=5,
        gpus_per_machine=1,
        price_per_gpu_hour=2,
    )
    ((name, kind),) = types_of(spec).items()
    assert (name, kind.most, kind.price_per_hour) == ("5 CPUs and 1 GPU", 4, 2)
    assert types_of(ClusterSpec()) == {}
