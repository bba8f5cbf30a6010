"""Runs that train side by side: the time they save, the pace they tell of, the memory that bounds them."""

import pytest

from ablations.study.plan import expand
from orchestrator.prepare import estimate as module
from orchestrator.prepare.cohort_costs import CohortCosts, Planned
from orchestrator.prepare.estimate import START_S
from orchestrator.prepare.jobs import Preparer
from orchestrator.prepare.pace import measured_paces, structure
from orchestrator.store.ledger import Ledger
from orchestrator.terminal.cost import estimate_lines
from tests.orchestrator.prepare.earlier_runs import AROUND, CPU, SECONDS, make, of, record

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
        costs = CohortCosts(lambda config: {"gmacs": 1.0, "params_m": 1.0})
        costs.memory = memory
        costs.paces = {structure(run.config): module.Pace(1.0, 0.0, 0.0, memory=1e9) for run in runs}
        return [len(cohort) for cohort in costs.cohorts(runs, 1, 16)]

    assert cohorts(None) == cohorts(4e9) == [3]
    assert cohorts(1.14e9) == [2, 1], "a second student of a million parameters, and no third"
    assert cohorts(1.1e9) == [1, 1, 1]
