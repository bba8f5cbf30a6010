"""check_study(): refuse a study that cannot run here, before its data is read."""

from __future__ import annotations

from collections.abc import Callable

from cluster.concurrency import concurrency
from cluster.spec import ClusterSpec, spec_of
from orchestrator.prepare.jobs import Preparer
from orchestrator.prepare.limits import LimitsCheck, deployed
from orchestrator.prepare.room import specs_of, unused_overrides
from orchestrator.prepare.search_space import refuse_infeasible
from orchestrator.state.study_state import StudyState
from trainer.compiler import check_compiler
from trainer.config import TrainConfig, located, parse


def check_study(state: StudyState, preparer: Preparer, say: Callable[[str], None]) -> dict[str, TrainConfig]:
    """Arm -> config of a study's runs, the base of a search included.

    Raises UserError for what cannot run. The cheapest checks come first: resources, batch sizes, folders, structures,
    limits.
    """
    study, spec = state.study, preparer.spec
    if spec.address == "local":
        _check_this_machine(state, spec)
    plan = [run.plan for run in state.runs]
    configs = {run.arm: run.config for run in plan}
    given = {run.arm: spec_of(spec, run.role, run.arm) for run in plan}
    if study.search is not None:
        configs["base"] = parse(study.base)
        given["base"] = spec_of(spec, "trial", "")
    _check_batches_and_folders(state, preparer, configs, given, say)
    say("checking the structures of its runs")
    costs = {}
    for arm, config in configs.items():
        with located(f"{study.name}: {arm}"):
            costs[arm] = preparer.check(config)
    limits_check = LimitsCheck(study.limits, spec_of(spec, "arm", ""), preparer.store, state.ledger)
    with located(study.name):
        limits_check.refuse(deployed(study, plan), costs)
    refuse_infeasible(study, preparer.check_trial, limits_check)
    return configs


def _check_this_machine(state: StudyState, spec: ClusterSpec) -> None:
    from orchestrator.prepare.machine import here

    for each in specs_of(state, spec).values():
        if each.compile:
            check_compiler("cuda" if each.gpus_per_worker else "cpu")
        concurrency(each, *here(with_gpus=each.gpus_per_worker > 0))


def _check_batches_and_folders(
    state: StudyState,
    preparer: Preparer,
    configs: dict[str, TrainConfig],
    given: dict[str, ClusterSpec],
    say: Callable[[str], None],
) -> None:
    from orchestrator.prepare.machine import slow_bf16

    if slow := slow_bf16((given[arm], config) for arm, config in configs.items()):
        say(slow)
    for arm, config in configs.items():
        with located(f"{state.study.name}: {arm}"):
            config.optim.group_sizes(given[arm].least_workers, given[arm].most_workers, preparer.spec.micro_batch)
    for config in {config.data.model_dump_json(): config for config in configs.values()}.values():
        with located(state.study.name):
            preparer.check_root(config)
    if unused := unused_overrides(state, preparer.spec):
        say(unused)
