"""A search's space: what is proposed, when, and what becomes of a proposal."""

from __future__ import annotations

import re

import pytest

from ablations.study.plan import expand, proposes, search_identity, space, start_points, trial_config, trial_run
from trainer.config import UserError

SPACE = """
search:
  trials: 5
  space:
    distill.csf.weight: {log: [1.0e-2, 10.0]}
    distill.csf.options.norm: {choice: [layer, reference]}
    optim.lr: {uniform: [1.0e-4, 1.0e-2]}
    optim.epochs: {int: [2, 5]}
    distill.csf: {choice: [null, {}]}
  start:
    - {distill.csf: {}, distill.csf.weight: 1}
"""


@pytest.fixture
def searched(study):
    def write(rest=SPACE):
        return study(rest, data=", select: 0.1")

    return write


def test_what_decides_is_proposed_before_what_depends_on_it(searched):
    assert list(space(searched())) == [
        "optim.lr",
        "optim.epochs",
        "distill.csf",
        "distill.csf.weight",
        "distill.csf.options.norm",
    ]


def test_nothing_is_proposed_for_a_path_that_is_off(searched):
    study = searched()
    for label, applies in (("on", True), ("off", False)):
        assert proposes(study, "distill.csf.weight", {"distill.csf": label}) is applies
        assert proposes(study, "optim.lr", {"distill.csf": label})


def test_an_option_is_not_proposed_beside_weight_zero(searched):
    rest = """
    search:
      trials: 1
      space:
        distill.csf.weight: {choice: [0.0, 1.0]}
        distill.csf.options.norm: {choice: [layer, reference]}
    """
    study = searched(rest)
    expand(study)
    assert not proposes(study, "distill.csf.options.norm", {"distill.csf.weight": "0"})
    assert proposes(study, "distill.csf.options.norm", {"distill.csf.weight": "1"})


def test_a_proposal_becomes_the_config_it_says(searched):
    study = searched()
    values = {"distill.csf": "on", "distill.csf.weight": 0.25, "distill.csf.options.norm": "reference"}
    config = trial_config(study, values | {"optim.lr": 0.005, "optim.epochs": 4})
    assert config.distill["csf"].model_dump() == {"weight": 0.25, "options": {"norm": "reference"}}
    assert (config.optim.lr, config.optim.epochs) == (0.005, 4)
    assert set(trial_config(study, {"distill.csf": "off"}).distill) == {"pea"}


def test_a_trial_is_taught_by_the_one_teacher_of_the_search(searched):
    study = searched()
    (teacher,) = expand(study)
    run = trial_run(study, 3, {"distill.csf": "off", "optim.lr": 0.005})
    assert (run.role, run.arm, run.needs) == ("trial", "trial 3", teacher.key)


def test_a_contradiction_is_infeasible(searched):
    study = searched(SPACE + "requires: {distill.pea: [distill.csf]}")
    expand(study)
    with pytest.raises(UserError, match=r"distill\.pea requires distill\.csf"):
        trial_config(study, {"distill.csf": "off"})


def test_whole_sets_of_paths_are_a_choice_by_name(searched):
    study = searched(
        """
        search:
          trials: 1
          space:
            distill: {choice: {alone: {}, gl: {pea_gl: {}}}}
            distill.pea_gl.weight: {log: [0.1, 1.0]}
        """
    )
    expand(study)
    assert trial_config(study, {"distill": "alone"}).teacher is None
    assert not proposes(study, "distill.pea_gl.weight", {"distill": "alone"})
    assert trial_config(study, {"distill": "gl", "distill.pea_gl.weight": 0.5}).distill["pea_gl"].weight == 0.5


def test_known_points_are_given_as_values_or_labels(searched):
    assert start_points(searched()) == [{"distill.csf": "on", "distill.csf.weight": 1.0}]


def test_rungs_are_below_the_whole_length(searched):
    search = searched().search.model_copy(update={"stop": "asha"})
    assert search.rungs(9) == (1, 3)
    assert search.rungs(10) == (1, 3, 9)
    assert search.model_copy(update={"stop": "none"}).rungs(9) == ()


def _space(dimensions: str, more: str = "") -> str:
    return f"search:\n  trials: 1\n  space: {{{dimensions}}}\n{more}"


REFUSED = {
    "two kinds": (_space("optim.lr: {log: [0.1, 1.0], uniform: [0.1, 1.0]}"), "write one of log, uniform, int"),
    "unknown kind": (_space("optim.lr: {logg: [0.1, 1.0]}"), "unknown kind of dimension 'logg'; did you mean 'log'?"),
    "backwards": (_space("optim.lr: {log: [1.0, 0.1]}"), "low must be below high but got [1, 0.1]"),
    "log of zero": (_space("optim.lr: {log: [0.0, 0.1]}"), "low must be above 0"),
    "text": (_space("optim.lr: {log: [1e-4, 0.1]}"), "write 1.0e-4"),
    "broken int": (_space("optim.epochs: {int: [1, 2.5]}"), "whole numbers"),
    "one end": (_space("optim.lr: {log: [1.0]}"), "log needs [low, high]"),
    "no choice": (_space("optim.lr: {choice: []}"), "at least one value"),
    "typo": (_space("optim.ler: {log: [0.1, 1.0]}"), "optim.ler: unknown key; did you mean 'lr'?"),
    "typo of a path": (_space("distill.cfs.weight: {log: [0.1, 1.0]}"), "distill.cfs.weight never applies"),
    "bad second choice": (_space("data.augment: {choice: [none, heavy]}"), "data.augment"),
    "bad high end": (_space("student.dropout: {uniform: [0.1, 2.0]}"), "student.dropout"),
    "a number for a path": (_space("distill.csf: {log: [0.1, 1.0]}"), "distill.csf is a path, not a number"),
    "teacher": (_space("teacher.name: {choice: [segformer_b0]}"), "trials share one teacher"),
    "data": (_space("data.size: {choice: [[32, 32]]}"), "trials share one data"),
    "start of no dimension": (_space("optim.lr: {log: [0.1, 1.0]}", "  start: [{optim.ler: 0.2}]"), "'optim.lr'?"),
    "start outside": (_space("optim.lr: {log: [0.1, 1.0]}", "  start: [{optim.lr: 2.0}]"), "2 is outside [0.1, 1]"),
    "start of no choice": (_space("optim.lr: {choice: [0.1]}", "  start: [{optim.lr: 2.0}]"), "none of its choices"),
    "start under nothing": (
        _space(
            "distill.csf: {choice: [null, {}]}, distill.csf.weight: {log: [0.1, 1.0]}",
            "  start: [{distill.csf: null, distill.csf.weight: 0.5}]",
        ),
        "distill.csf.weight does not apply",
    ),
    "all excluded": (
        _space("optim.lr: {log: [0.1, 1.0]}", "excludes: [[distill.csf, distill.pea]]"),
        "every point contradicts",
    ),
    "no total": (_space("optim.lr: {log: [0.1, 1.0]}").replace("  trials: 1\n", ""), "trials is missing"),
    "cmaes of a choice": (
        _space("distill.csf: {choice: [null, {}]}", "  sampler: cmaes"),
        "search: sampler: cmaes needs numeric dimensions that always apply, but distill.csf is a choice; use tpe",
    ),
    "grid of a range": (
        _space("optim.lr: {log: [0.1, 1.0]}", "  sampler: grid"),
        "sampler: grid needs choices or ints, but optim.lr is a range; write choice: [...]",
    ),
    "grid with known points": (
        _space("optim.lr: {choice: [0.1]}", "  sampler: grid\n  start: [{optim.lr: 0.1}]"),
        "start: a grid proposes all of its points",
    ),
    "more trials than points": (
        _space("optim.lr: {choice: [0.1, 0.2]}", "  sampler: grid").replace("trials: 1", "trials: 3"),
        "search.trials is 3 but the grid has 2 points; lower it, or remove it",
    ),
    "two objectives stopped": (
        _space("optim.lr: {log: [0.1, 1.0]}", "  against: gmacs\n  stop: median"),
        "stop: median judges by one metric, and `against` adds a second; set stop: none",
    ),
    "two objectives by cmaes": (
        _space("optim.lr: {log: [0.1, 1.0]}", "  against: gmacs\n  sampler: cmaes"),
        "cmaes has one objective",
    ),
    "one parent": (
        _space("optim.lr: {log: [0.1, 1.0]}", "  sampler: nsga2\n  startup: 1"),
        "a generation of nsga2 needs two parents",
    ),
    "lengths compared": (
        _space("optim.epochs: {int: [2, 5]}", "  stop: asha"),
        "stop: asha compares trials of equal length; take optim.epochs out of space, or set stop: none",
    ),
    "brackets of nothing": (
        _space("optim.lr: {log: [0.1, 1.0]}", "  brackets: 2"),
        "brackets only applies with stop: asha; set it, or remove brackets",
    ),
    "rungs of nothing": (
        _space("optim.lr: {log: [0.1, 1.0]}", "  stop: median\n  eta: 2"),
        "eta only applies with stop: asha; set it, or remove eta",
    ),
    "a start of nothing": (
        _space("optim.lr: {log: [0.1, 1.0]}", "  sampler: random\n  startup: 2"),
        "startup only applies with sampler: tpe, cmaes or nsga2; set it, or remove startup",
    ),
    "a rule that comes too late": (
        _space("optim.lr: {log: [0.1, 1.0]}", "  stop: median\n  min_epochs: 9"),
        "search.min_epochs is 9 of 9 epochs, so stop: median never stops",
    ),
    "all the data": (
        _space("data: {choice: {small: {name: scenes}}}"),
        "search.space: trials share one data, so data is fixed; make it a factor",
    ),
    "a batch of nothing": (
        _space("optim.lr: {log: [0.1, 1.0]}", "  batch: 2"),
        "batch only applies with deterministic: true; set it, or remove batch",
    ),
    "brackets without rungs": (
        _space("optim.lr: {log: [0.1, 1.0]}", "  stop: asha\n  brackets: 9"),
        "the last never stops; lower brackets",
    ),
    "random learns": (
        _space("optim.lr: {log: [0.1, 1.0]}", "  sampler: random\n  learn_from: other"),
        "learn_from: random learns nothing from results; remove it, or use tpe",
    ),
    "val": (_space("optim.lr: {log: [0.1, 1.0]}", "  metric: val/miou"), "metric"),
    "seeds": (_space("optim.lr: {log: [0.1, 1.0]}", "seeds: 3"), "a search runs each trial once"),
    "margin": (_space("optim.lr: {log: [0.1, 1.0]}", "margin: 0.3"), "margin belongs to arms"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_in_a_space_is_refused_before_the_first_trial(searched, case):
    rest, message = REFUSED[case]
    with pytest.raises(UserError, match=re.escape(message)):
        expand(searched(rest))


def test_a_search_needs_a_split_to_select_by(study):
    with pytest.raises(UserError, match=r"set base\.data\.select above 0"):
        study(SPACE)


def test_a_grid_is_as_long_as_it_has_points(searched):
    search = searched(
        _space("optim.epochs: {int: [2, 4]}, distill.csf: {choice: [null, {}]}", "  sampler: grid")
    ).search
    assert search.trials == 1, "a total below the points is kept"
    rest = _space("optim.epochs: {int: [2, 4]}, distill.csf: {choice: [null, {}]}", "  sampler: grid")
    assert searched(rest.replace("  trials: 1\n", "")).search.trials == 6


def test_what_changes_proposals_is_another_search_and_more_trials_are_not(searched):
    def identity(more, trials=1):
        return search_identity(searched(_space("optim.lr: {log: [0.1, 1.0]}", more).replace("s: 1", f"s: {trials}")))

    words = ["", "seed: 1", "sampler: random", "against: gmacs", "learn_from: other", "deterministic: true"]
    words += ["deterministic: true, batch: 2", "deterministic: true, stop: median"]
    found = {word: identity("".join(f"  {part}\n" for part in word.split(", ") if part)) for word in words}
    assert len(set(found.values())) == len(words)
    assert identity("", trials=7) == found[""]
    assert identity("limits: {params_m: 3}\n") not in found.values(), "a limit refuses what was proposed without it"
    assert identity("  deterministic: true\n", trials=7) == found["deterministic: true"]
