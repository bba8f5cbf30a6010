"""From a study to its runs: overrides, arms, grids, teachers, seeds."""

from __future__ import annotations

import copy
import subprocess
import sys
import time

import pytest

from ablations.study.plan import expand, override
from ablations.study.schema import load, packaged, read
from trainer.config import UserError, parse

DATA = {
    "teacher": {"name": "segformer_mini", "train": {"epochs": 3}},
    "distill": {"csf": {}, "pea": {"options": {"stage_weights": [0.1, 0.1, 0.5, 1.0]}}},
}

OVERRIDES = {
    "a number": ({"optim.lr": 0.1}, lambda d: d["optim"]["lr"] == 0.1),
    "a weight": ({"distill.csf.weight": 2.0}, lambda d: d["distill"]["csf"] == {"weight": 2.0}),
    "a path removed": ({"distill.pea": None}, lambda d: d["distill"] == {"csf": {}}),
    "a path added": ({"distill.kd": {}}, lambda d: list(d["distill"]) == ["csf", "pea", "kd"]),
    "all paths replaced": ({"distill": {}}, lambda d: d["distill"] == {}),
    "an option removed": (
        {"distill.pea.options.stage_weights": None},
        lambda d: d["distill"]["pea"] == {"options": {}},
    ),
    "null as a value": ({"teacher": None, "distill": {}}, lambda d: d["teacher"] is None),
    "null of a default": ({"optim.norm_batch": None}, lambda d: d["optim"] == {"norm_batch": None}),
    "the long before the short": (
        {"distill.kd.weight": 2.0, "distill.kd": {"options": {"t": 4}}},
        lambda d: d["distill"]["kd"] == {"options": {"t": 4}, "weight": 2.0},
    ),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_override_replaces_what_a_path_names_and_nothing_else(case):
    changes, holds = OVERRIDES[case]
    before = copy.deepcopy(DATA)
    result = override(DATA, changes)
    assert holds(result)
    assert before == DATA
    touched = {path.split(".")[0] for path in changes}
    assert {k: v for k, v in result.items() if k not in touched} == {k: v for k, v in DATA.items() if k not in touched}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill.cfs.weight": 2.0}, "distill.cfs.weight: unknown knowledge path 'cfs'; did you mean 'csf'?"),
        ({"distill.pae": None}, "distill.pae: nothing to remove; unknown key 'pae'; did you mean 'pea'?"),
        ({"distill.pea": None, "distill.pea.weight": 1.0}, "unknown knowledge path 'pea'"),
        ({"distill.csf.options.norm": None}, "nothing to remove"),
        ({"teacher.name.length": 3}, "teacher.name must be a mapping but is 'segformer_mini'"),
    ],
)
def test_override_refuses_a_path_that_leads_nowhere(changes, message):
    with pytest.raises(UserError) as caught:
        override(DATA, changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("{optim.ler: 0.1}", "written: a: optim.ler: unknown key; did you mean 'lr'?"),
        ("{optm.lr: 0.1}", "written: a: optm: unknown key; did you mean 'optim'?"),
        ("{optim.lr: 1e-3}", "YAML reads '1e-3' as text, not as a number; write 1.0e-3"),
        ("{optim.lr: null}", "optim.lr"),
        ("{teacher: null}", "needs a teacher"),
        ("{distill.pae: null}", "did you mean 'pea'?"),
    ],
)
def test_an_arm_that_is_no_config_is_refused_with_its_name(study, changes, message):
    with pytest.raises(UserError) as caught:
        expand(study(f"variants: {{b: {{}}, a: {changes}}}"))
    assert message in str(caught.value)
    assert "written: a: " in str(caught.value)


def test_arms_that_would_compute_the_same_are_refused_by_name(study):
    with pytest.raises(UserError, match="arms 'both' and 'again' are the same run"):
        expand(study("variants: {both: {}, again: {distill.csf.weight: 1.0}}"))
    with pytest.raises(UserError, match="arms 'no csf' and 'base without csf' are the same run"):
        expand(study("variants: {no csf: {distill.csf: null}}\nleave_one_out: distill"))


def test_teachers_come_first_and_seeds_are_whole_blocks(study):
    runs = expand(study("variants: {alone: {distill: {}}, both: {}}\nseeds: [5, 3]"))
    assert [(run.role, run.arm, run.seed) for run in runs] == [
        ("teacher", "teacher segformer_mini", 0),
        ("arm", "alone", 5),
        ("arm", "both", 5),
        ("arm", "alone", 3),
        ("arm", "both", 3),
    ]
    teacher, *arms = runs
    assert [run.needs for run in arms] == [None, teacher.key, None, teacher.key]
    assert teacher.config.optim.epochs == 3
    assert teacher.config.student.name == "segformer_mini"
    assert all(run.config.seed == run.seed for run in runs)
    assert len({run.key for run in runs}) == len(runs)


def test_every_config_is_what_parsing_its_plain_data_gives(study):
    for run in expand(study("factors: {distill.csf: [null, {}], optim.lr: [1.0e-3, 1.0e-4]}\nseeds: 2")):
        again = parse(run.config.model_dump(mode="json"))
        assert again == run.config
        assert again.key == run.key


def test_one_teacher_whatever_the_arms_change_about_the_student(study):
    runs = expand(study("variants: {a: {}, b: {optim.lr: 0.5}, c: {student.dropout: 0.5}, d: {data.augment: none}}"))
    assert [run.role for run in runs].count("teacher") == 1
    assert runs[0].config.optim.lr == 1.0e-3


def test_another_teacher_or_other_data_is_another_teacher_run(study):
    runs = expand(study("variants: {a: {}, b: {teacher.train.seed: 1}, c: {data.size: [32, 64]}}"))
    teachers = [run for run in runs if run.role == "teacher"]
    assert [(run.seed, run.config.data.size) for run in teachers] == [(0, (96, 192)), (1, (96, 192)), (0, (32, 64))]
    assert [run.needs for run in runs if run.role == "arm"] == [run.key for run in teachers]


def test_the_student_alone_is_one_run_whatever_teacher_it_does_not_have(study):
    ours = expand(study("variants: {alone: {distill: {}}}"))
    theirs = expand(study("variants: {alone: {distill: {}, teacher.name: segformer_b2}}", name="other"))
    off = expand(study("variants: {alone: {distill.csf.weight: 0, distill.pea: null}}"))
    assert len(ours) == len(theirs) == len(off) == 1
    assert ours[0].key == theirs[0].key == off[0].key
    assert ours[0].config.teacher is None


def test_a_teacher_from_a_checkpoint_is_not_trained():
    text = "name: s\nbase: {teacher: {checkpoint: t.pt}, distill: {csf: {}}}\nvariants: {a: {}}"
    (run,) = expand(read(text, "s"))
    assert run.needs is None
    assert run.config.teacher.checkpoint == "t.pt"


def test_a_grid_has_every_point_once_with_a_name_to_read(study):
    runs = expand(study("factors: {distill.csf: [null, {}], distill.pea: [null, {}]}"))
    arms = {run.arm: set(run.config.distill) for run in runs if run.role == "arm"}
    assert arms == {
        "csf=off, pea=off": set(),
        "csf=off, pea=on": {"pea"},
        "csf=on, pea=off": {"csf"},
        "csf=on, pea=on": {"csf", "pea"},
    }


def test_a_factor_under_an_absent_path_does_not_multiply_the_arms(study):
    runs = expand(study("factors: {distill.csf.weight: [0.1, 1.0], distill.csf: [null, {}], optim.lr: [0.1]}"))
    assert [run.arm for run in runs if run.role == "arm"] == [
        "csf=off, lr=0.1",
        "csf.weight=0.1, csf=on, lr=0.1",
        "csf.weight=1, csf=on, lr=0.1",
    ]


def test_a_teachers_factor_does_not_multiply_the_student_alone(study):
    factors = "factors: {distill: {alone: {}, csf: {csf: {}}}, teacher.train.seed: [0, 1]}"
    runs = expand(study(factors))
    assert [run.arm for run in runs if run.role == "arm"] == [
        "distill=alone",
        "distill=csf, teacher.train.seed=0",
        "distill=csf, teacher.train.seed=1",
    ]
    assert [run.seed for run in runs if run.role == "teacher"] == [0, 1]


def test_requires_and_excludes_leave_points_out_and_count_them(study):
    written = study(
        """
        factors: {distill.csf: [null, {}], distill.pea: [null, {}], distill.pea_gl: [null, {}]}
        excludes: [[distill.pea, distill.pea_gl]]
        requires: {distill.pea_gl: [distill.csf]}
        """
    )
    arms = {frozenset(run.config.distill) for run in expand(written) if run.role == "arm"}
    assert arms == {frozenset(), *map(frozenset, (["csf"], ["pea"], ["csf", "pea"], ["csf", "pea_gl"]))}
    assert written.compared.left_out == 3


def test_a_path_of_weight_zero_is_off_for_requires_and_excludes(study):
    written = study("factors: {distill.csf.weight: [0, 1.0]}\nexcludes: [[distill.csf, distill.pea]]")
    assert list(written.compared.overrides) == ["csf.weight=0"]


@pytest.mark.slow
def test_ten_thousand_runs_are_planned_while_one_waits(study):
    rates = ", ".join(f"{i}.0e-5" for i in range(1, 51))
    written = study(f"factors: {{optim.lr: [{rates}], optim.epochs: {list(range(1, 51))}}}\nseeds: 4")
    began = time.process_time()
    assert len(expand(written)) == 10_001
    assert time.process_time() - began < 5


@pytest.mark.parametrize("name", packaged())
def test_packaged_studies_expand(name):
    written = load(name)
    runs = expand(written)
    assert len(runs) == len({run.key for run in runs})
    taught = {run.needs for run in runs if run.needs} or {run.key for run in runs if run.role == "teacher"}
    assert len(runs) == len(written.compared.overrides) * len(written.seeds) + len(taught)


@pytest.mark.slow
def test_planning_does_without_torch_and_ray():
    code = "import sys; import ablations.study.plan, ablations.table.arms, ablations.table.trials; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "ablations.study.plan" in modules
    assert not {"torch", "ray", "mlflow", "optuna"} & set(modules)


def test_an_override_leaves_what_it_was_given_alone():
    choice = {"csf": {}}
    changed = override({"distill": {}}, {"distill": choice, "distill.csf.weight": 2.0})
    assert changed == {"distill": {"csf": {"weight": 2.0}}}
    assert choice == {"csf": {}}
