"""Room: the shapes of a study's runs, which the overrides of a cluster spec make differ, and how many train at once."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.concurrency import Shape, check_a_machine_fits, concurrency_on, grown, shape_of
from cluster.machine_types import Machine
from cluster.spec import ClusterSpec, spec_of
from orchestrator.state.study_state import StudyState


def specs_of(state: StudyState, spec: ClusterSpec) -> dict[Shape, ClusterSpec]:
    """Shape -> the spec of the study's runs of this shape, the searches' trials included."""
    kinds = [(run.plan.role, run.plan.arm) for run in state.runs] + [("trial", "")] * bool(state.searches)
    found: dict[Shape, ClusterSpec] = {}
    for role, arm in dict.fromkeys(kinds):
        given = spec_of(spec, role, arm)
        found.setdefault(shape_of(given), given)
    return found


def at_once(specs: dict[Shape, ClusterSpec], machines: Sequence[Machine]) -> dict[Shape, int]:
    """Shape -> how many of its runs train at once on the machines, and on those that an autoscaler adds for them.
    Raises SpecError where none does."""
    for spec in specs.values():
        check_a_machine_fits(spec, machines)
    return {shape: concurrency_on(spec, grown(spec, machines)) for shape, spec in specs.items()}


def refuse_unplaceable(state: StudyState, spec: ClusterSpec) -> None:
    """Raise SpecError where the machine types of a spec hold none of the study's runs of one shape."""
    if spec.machine_types:
        at_once(specs_of(state, spec), [])


def unused_overrides(state: StudyState, spec: ClusterSpec) -> str:
    """A line that names the overrides that no run of the study has: those of another study, or a name that was
    misspelt; empty where there are none."""
    known = {name for run in state.runs for name in (run.plan.role, run.plan.arm)} | {"teacher", "arm", "trial"}
    names = [name for name in spec.overrides if name not in known]
    return f"overrides not used: no run of {state.study.name} is of {', '.join(names)}" if names else ""
