"""The schema of a study: what it refuses, and in which words."""

from __future__ import annotations

import re

import pytest

from ablations.study.plan import search_identity
from ablations.study.schema import load, packaged, read
from trainer.config import UserError

VARIANTS = "variants:\n  alone: {distill: {}}\n  both: {}\n"

REFUSED = {
    "unknown top key": (f"{VARIANTS}refrence: both", "refrence: unknown key; did you mean 'reference'?"),
    "retries of a cluster": (
        f"{VARIANTS}retries: {{lost: 3}}",
        "retries: belongs to a cluster, not to a study; write it",
    ),
    "price of a cluster": (f"{VARIANTS}price_per_gpu_hour: 2.5", "price_per_gpu_hour: belongs to a cluster"),
    "seed twice": ("variants: {a: {}}\nseeds: [0, 0]", "seeds: each seed may stand once but got [0, 0]"),
    "two kinds": (f"{VARIANTS}factors: {{optim.lr: [0.1]}}", "one of variants, factors, search"),
    "no kind": ("seeds: 2", "but got none"),
    "no seeds": (f"{VARIANTS}seeds: []", "seeds: 1 to 40 seeds are needed but got 0"),
    "too many seeds": (f"{VARIANTS}seeds: 41", "a count of seeds must be 1 to 40 but got 41"),
    "negative seed": (f"{VARIANTS}seeds: [-1]", "greater than or equal to 0"),
    "one look": (
        f"{VARIANTS}seeds: {{looks: [6]}}",
        "seeds: looks: at least two looks are needed, as one is a fixed number of seeds; write seeds: 6",
    ),
    "looks that shrink": (f"{VARIANTS}seeds: {{looks: [8, 6]}}", "seeds: looks: looks must grow, such as [6, 8, 12]"),
    "a look of one": (f"{VARIANTS}seeds: {{looks: [1, 6]}}", "looks are counts of seeds from 2 to 40, but got [1, 6]"),
    "looks without end": (f"{VARIANTS}seeds: {{looks: [6, 41]}}", "counts of seeds from 2 to 40, but got [6, 41]"),
    "looks until nothing": (f"{VARIANTS}seeds: {{looks: [6, 8], until: end}}", "until"),
    "looks at no contrast": ("variants: {a: {}}\nseeds: {looks: [6, 8]}", "in a study with a contrast"),
    "looks beside seeds": (f"{VARIANTS}seeds: 8\nlooks: [7, 3, 8]", "looks must grow"),
    "looks beside other seeds": (f"{VARIANTS}seeds: 3\nlooks: [2, 4]", "looks [2, 4] and 3 seeds"),
    "looks of a search": (
        "search: {trials: 1, space: {optim.lr: {log: [1.0e-4, 1.0e-2]}}}\nseeds: {looks: [6, 8]}",
        "a search runs each trial once",
    ),
    "unknown reference": (f"{VARIANTS}reference: bth", "reference: unknown arm 'bth'; did you mean 'both'?"),
    "unknown contrast": (
        f"{VARIANTS}contrasts: [[both, alon]]",
        "contrasts: unknown arm 'alon'; did you mean 'alone'?",
    ),
    "self contrast": (f"{VARIANTS}contrasts: [[both, both]]", "'both' is compared with itself"),
    "contrast twice": (f"{VARIANTS}contrasts: [[both, alone], [both, alone]]", "two arms may be compared once"),
    "contrast turned round": (f"{VARIANTS}contrasts: [[both, alone], [alone, both]]", "two arms may be compared once"),
    "unknown published": (
        f"{VARIANTS}published: {{source: x, protocol: full, boht: 3.0}}",
        "published: unknown arm 'boht'; did you mean 'both'?",
    ),
    "published text": (f"{VARIANTS}published: {{source: x, protocol: full, both: 5e1}}", "write 5.0e+1"),
    "margin text": (f"{VARIANTS}margin: 3e-1", "write 3.0e-1"),
    "margin zero": (f"{VARIANTS}margin: 0", "margin"),
    "seed in variant": ("variants: {a: {seed: 3}}", "list it under `seeds`"),
    "seed as factor": ("factors: {seed: [1, 2]}", "list it under `seeds`"),
    "leave out of nothing": ("leave_one_out: optim", "leave_one_out: expected `distill`"),
    "leave out of a grid": ("factors: {optim.lr: [0.1]}\nleave_one_out: distill", "adds to variants, not to factors"),
    "leave out twice": ("variants: {both: {}, both without csf: {optim.lr: 0.1}}\nleave_one_out: distill", "drop one"),
    "excluded variant": (
        "variants: {a: {}}\nexcludes: [[distill.csf, distill.pea]]",
        "variants.a: distill.csf and distill.pea exclude each other",
    ),
    "required variant": (
        "variants: {a: {distill.pea: null}}\nrequires: {distill.csf: [distill.pea]}",
        "variants.a: distill.csf requires distill.pea",
    ),
    "excludes a misspelt path": (
        "variants: {a: {}}\nexcludes: [[distill.csf, distill.pae]]",
        "requires and excludes: unknown knowledge path 'distill.pae'; did you mean 'distill.pea'?",
    ),
    "requires a misspelt path": (
        "factors: {distill.pea_gl: [null, {}]}\nrequires: {distill.pea_gi: [distill.csf]}",
        "unknown knowledge path 'distill.pea_gi'; did you mean 'distill.pea_gl'?",
    ),
    "requires no path": ("variants: {a: {}}\nrequires: {csf: [distill.pea]}", "but got 'csf'"),
    "factor of no path": ("factors: {distill.cfs.weight: [1.0, 2.0]}", "distill.cfs.weight applies at no point"),
    "factor value twice": (
        "factors: {optim.lr: [0.1, 0.1]}",
        "values must have different labels, but 0.1 and 0.1 are both shown as '0.1'",
    ),
    "factor scalar": ("factors: {optim.lr: 0.1}", "values are a list"),
    "factor empty": ("factors: {optim.lr: []}", "at least one value"),
    "every point excluded": (
        "factors: {optim.lr: [0.1]}\nexcludes: [[distill.csf, distill.pea]]",
        "every point contradicts",
    ),
    "key twice": ("variants:\n  a: {}\n  b: {}\n  a: {optim.lr: 0.1}\n", "line 12: key 'a' is written twice"),
    "arm named by a boolean": ("variants: {on: {}}", "variants"),
    "seeds in words": (f"{VARIANTS}seeds: three", "seeds: a list is expected, for example [0, 1], but got 'three'"),
    "no looks": (f"{VARIANTS}seeds: {{looks: []}}", "looks: needs 1 or more, but got []"),
    "no space": ("search: {trials: 1}", "search.space: is missing"),
    "not yaml": ("variants: {a: [}", "not valid YAML"),
    "metric of train": (f"{VARIANTS}metric: loss", "metric"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_refused_in_one_line_that_names_it(study, case):
    rest, message = REFUSED[case]
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        study(rest)
    assert str(caught.value).startswith("written.yaml")
    assert "\n" not in str(caught.value)


def test_a_seed_that_is_none_is_one_mistake(study):
    with pytest.raises(UserError) as caught:
        study(f"{VARIANTS}seeds: [-1]")
    assert str(caught.value).count("seeds") == 1


def test_a_mistake_in_the_base_is_named_with_its_path():
    with pytest.raises(UserError, match=r"s\.yaml: base: optim\.ler: unknown key; did you mean 'lr'\?"):
        read("name: s\nbase: {optim: {ler: 0.1}}\nvariants: {a: {}}", "s.yaml")
    with pytest.raises(UserError, match=r"base: optim\.lr: YAML reads '1e-3' as text, not as a number; write 1\.0e-3"):
        read("name: s\nbase: {optim: {lr: 1e-3}}\nvariants: {a: {}}", "s.yaml")
    with pytest.raises(UserError, match=r"s\.yaml: expected a mapping"):
        read("- a\n- b", "s.yaml")


def test_a_name_is_safe_in_a_path(study):
    with pytest.raises(UserError, match="name"):
        study(VARIANTS, name="../up")


def test_seeds_as_a_count_are_that_many_from_zero(study):
    assert study(f"{VARIANTS}seeds: 3").seeds == (0, 1, 2)
    assert study(f"{VARIANTS}seeds: [4, 2]").seeds == (4, 2)


def test_looks_are_all_their_seeds_and_where_to_read_them(study):
    written = study(f"{VARIANTS}seeds: {{looks: [6, 8, 12], until: decided}}")
    assert (written.seeds, written.looks) == (tuple(range(12)), (6, 8, 12))
    assert type(written).model_validate(written.model_dump()) == written
    assert study(f"{VARIANTS}seeds: 3").looks == ()


def test_contrasts_default_to_each_arm_against_the_reference(study):
    three = "variants: {alone: {distill: {}}, c: {distill.pea: null}, both: {}}\n"
    assert study(three).pairs == (("c", "alone"), ("both", "alone"))
    assert study(f"{three}reference: both").pairs == (("alone", "both"), ("c", "both"))
    assert study(f"{three}contrasts: [[both, c]]").pairs == (("both", "c"),)


def test_leave_one_out_is_named_after_the_arm_that_is_the_base(study):
    arms = study("variants: {alone: {distill: {}}, Whole: {}}\nleave_one_out: distill").compared.overrides
    assert list(arms) == ["alone", "Whole", "Whole without csf", "Whole without pea"]
    assert arms["Whole without pea"] == {"distill.pea": None}
    alone = study("leave_one_out: distill")
    assert list(alone.compared.overrides) == ["base", "base without csf", "base without pea"]
    options = study("leave_one_out: distill.pea.options").compared.overrides
    assert options["base without stage_weights"] == {"distill.pea.options.stage_weights": None}


def test_published_numbers_stand_beside_their_source(study):
    published = study(f"{VARIANTS}published: {{source: paper, protocol: full, teacher: 70, both: 68.58}}").published
    assert published.arms == {"teacher": 70.0, "both": 68.58}


def test_load_finds_packaged_names_and_files(tmp_path):
    assert load("demo").name == "demo"
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nbase: {}\nvariants: {a: {}}")
    assert load(path).name == "mine"
    assert load(str(path)).name == "mine"


def test_load_refuses_what_is_not_there(tmp_path):
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    with pytest.raises(UserError, match="unknown study 'demmo'; did you mean 'demo'"):
        load("demmo")
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="not a YAML file"):
        load(folder)


@pytest.mark.slow
def test_packaged_studies_are_named_by_their_files():
    assert {"demo", "demo_search", "camvid_modules", "cityscapes_modules"} <= set(packaged())
    assert all(load(name).name == name for name in packaged())


def test_a_metric_that_nothing_logs_is_refused(study):
    with pytest.raises(UserError, match="unknown metric 'val/miuo'; did you mean 'val/miou'"):
        study("variants: {a: {}}\nmetric: val/miuo\n")
    with pytest.raises(UserError, match="metric"):
        study(
            "search: {trials: 1, metric: select/mioo, space: {optim.lr: {log: [1.0e-4, 1.0e-2]}}}\n",
            data=", select: 0.1",
        )


def test_a_condition_of_the_data_set_is_a_metric(study):
    acdc = "variants: {a: {}}\nmetric: val/night/miou\n"
    assert study(acdc, data=", name: acdc").metric == "val/night/miou"
    with pytest.raises(UserError, match="unknown metric 'val/night/miou'"):
        study(acdc)


def test_the_config_of_a_run_is_no_study():
    with pytest.raises(
        UserError, match="this is the config of one run, not a study; train it with `python -m trainer fit"
    ):
        read("student: {name: segformer_b0}\noptim: {lr: 1.0e-3}", "run.yaml")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected a mapping with name, base and variants, but got an empty file"),
        ("[name, base]", r"but got \['name', 'base'\]"),
        ("workers: 2\naddress: auto", "this is no study: it has neither name nor base, but workers, address; give"),
        (
            "name: a/b\nbase: {}\nvariants: {a: {}}",
            "name: the name is also that of a folder .* but got 'a/b'; rename the study",
        ),
    ],
)
def test_a_file_of_another_kind_and_a_wrong_name_are_told(text, why):
    with pytest.raises(UserError, match=why):
        read(text, "s.yaml")


def test_rungs_are_epochs_that_are_validated(study):
    every = ", select: 0.1}\n  eval: {every: 2"
    search = "search: {trials: 1, stop: asha, min_epochs: MIN, space: {optim.lr: {log: [1.0e-4, 1.0e-2]}}}\n"
    with pytest.raises(UserError, match=r"not evaluated at rung 1, as eval\.every is 2"):
        study(search.replace("MIN", "1"), data=every)
    assert study(search.replace("MIN", "2"), data=every).search.rungs(9) == (2, 6)


def test_a_changed_space_is_another_search(study):
    text = "search: {trials: 2, space: {optim.lr: {log: [1.0e-4, 1.0e-2]}}}\n"
    first = search_identity(study(text, data=", select: 0.1"))
    assert search_identity(study(text.replace("trials: 2", "trials: 6"), data=", select: 0.1")) == first
    assert search_identity(study(text.replace("1.0e-2", "1.0e-1"), data=", select: 0.1")) != first
    assert search_identity(study(text, data=", select: 0.2")) != first
