"""Bounds of a study: every number of the schemas has a range and every name a rule, and no plan takes for ever."""

import time
from typing import Annotated, Union, get_args, get_origin

import annotated_types
import pytest
from pydantic import BaseModel

from ablations.study.schema import Study, read
from ablations.study.seeds import Looks
from cluster.spec import ClusterSpec, SpecError
from cluster.spec_file import load
from trainer.config import TrainConfig, UserError, parse

BASE = "name: s\nbase: {optim: {epochs: 9}, data: {select: 0.1}}\n"
NINE = "[1, 2, 3, 4, 5, 6, 7, 8, 9]"
CHECKED_ELSEWHERE = {"Study.name", "Study.metric", "Study.looks", "Looks.looks", "VariantSearch.variant"}
"""By a pattern, or by a validator of the whole."""


def leaves(annotation, metadata):
    """(type, metadata) of each plain type within an annotation."""
    if get_origin(annotation) is Annotated:
        inner, *own = get_args(annotation)
        unpacked = [part for each in own for part in (each.metadata if hasattr(each, "metadata") else [each])]
        yield from leaves(inner, [*metadata, *unpacked])
    elif get_args(annotation) and get_origin(annotation) is not None and "Literal" not in str(get_origin(annotation)):
        for inner in get_args(annotation):
            yield from leaves(inner, metadata if get_origin(annotation) in (Union, type(int | None)) else [])
    else:
        yield annotation, metadata


def models(model, seen):
    seen.add(model)
    for field in model.model_fields.values():
        for leaf, _ in leaves(field.annotation, []):
            if isinstance(leaf, type) and issubclass(leaf, BaseModel) and leaf not in seen:
                models(leaf, seen)
    return seen


@pytest.mark.parametrize("root", [TrainConfig, Study, ClusterSpec, Looks], ids=lambda model: model.__name__)
def test_every_number_has_a_range_and_every_text_a_rule(root):
    bare = []
    for model in models(root, set()):
        for name, field in model.model_fields.items():
            for leaf, metadata in leaves(field.annotation, list(field.metadata)):
                kinds = {type(part) for part in metadata}
                ranged = kinds & {annotated_types.Ge, annotated_types.Gt} and annotated_types.Le in kinds
                ranged = ranged or (annotated_types.Lt in kinds) or name in ("size", "concurrency", "cohort", "workers")
                ruled = "AfterValidator" in {kind.__name__ for kind in kinds}
                if (leaf in (int, float) and not ranged) or (leaf is str and not ruled):
                    bare.append(f"{model.__name__}.{name}")
    assert not set(bare) - CHECKED_ELSEWHERE


@pytest.mark.parametrize(
    "config",
    [
        *({"optim": {name: value}} for name in ("epochs", "global_batch") for value in (0, -1, 10**12, 1.5)),
        *({"optim": {"lr": value}} for value in (0, -1, 1e39, float("nan"), float("inf"))),
        *({"data": {"class_weights": [1.0, value]}} for value in (0, -1, float("inf"))),
        *({"data": {"size": [value, 64]}} for value in (0, 2**40, 10**30, 30)),
        *({"data": {"select": value}} for value in (-0.1, 0.5, 1)),
        *({"seed": value} for value in (-1, 2**63, 2**64)),
        {"teacher": {"train": {"seed": -1}}},
        *({"student": {"init": value}} for value in ("", " ", "a\x00b", "a\nb", "x" * 5000)),
        *({"student": {"name": value}} for value in ("", " ", "a\x1b[31m")),
        *(
            {"distill": {"csf": {"options": value}}}
            for value in ({"a": float("nan")}, {"a": [{"b": "1e-3"}]}, {" ": 1})
        ),
        {"distill": {"": {}}},
    ],
    ids=str,
)
def test_values_that_no_run_can_mean(config):
    with pytest.raises(UserError) as error:
        parse({"teacher": {"train": {}}, **config} if "teacher" not in config else config)
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ("variants: {a: {}}\nseeds: [1, 1.0]", "seeds: each seed may stand once"),
        ("variants: {a: {}}\nseeds: [true, 1]", "seeds.0: a number is expected, not true"),
        ("variants: {a: {}}\nseeds: ['1', '01']", "seeds.0: a number is expected, not the text '1'"),
        ("variants: {a: {}}\nseeds: [~]", "seeds.0"),
        ("variants: {a: {}}\nseeds: ~", "seeds"),
        ("variants: {a: {}}\nseeds: [001, 002, 010]", "line 4: seeds.0: '001' is read differently"),
        ("variants: {a: {}}\nseeds: [9223372036854775808]", "64 bits"),
        ("variants: {a: {}}\nseeds: {looks: [true, 6]}", "a number is expected, not true"),
        ('variants: {"": {}}', "variants: a name must not be blank"),
        ('variants: {"a\\nb": {}}', "variants: a name must be one line"),
        ('variants: {"a\\e[31m": {}}', "variants: a name must be one line"),
        ("factors: {optim.lr: {'': 0.1, b: 0.2}}", "a name must not be blank"),
        ("variants: {a: {}, b: {optim.lr: 0.1}}\nmargin: 1000", "margin"),
        ("variants: {a: {}}\nreference: ~", "reference"),
        ("variants: {a: {}}\npublished: {source: x, protocol: full, a: 101}", "published.arms.a"),
        ("variants: {a: {}}\npublished: {source: '', protocol: full, a: 1}", "published.source: a name must not be"),
        (f"factors: {{{', '.join(f'student.k{n}: {NINE}' for n in range(9))}}}", "a grid may have 10,000 points"),
        ("search: {trials: 1000000000000, space: {optim.lr: {log: [1.0e-4, 0.1]}}}", "search.trials"),
        ("search: {sampler: grid, space: {optim.epochs: {int: [1, 1000000000]}}}", "a grid may have 10,000 points"),
        ("search: {trials: 9, space: {optim.lr: {log: [1.0e-4, 1.0e+300]}}}", "search.space.optim.lr.high"),
        ("search: {trials: 9, stop: asha, brackets: 1000000000, space: {optim.lr: {log: [0.1, 1]}}}", "brackets"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_study_that_is_refused(rest, why):
    started = time.process_time()
    with pytest.raises(UserError) as error:
        read(BASE + rest, "s.yaml")
    assert time.process_time() - started < 3
    assert why in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "workers: true",
            "workers: '2'",
            "workers: 1\nworkers: 2",
            "workers: 010",
            "workers: 1.5",
            "workers: 1000000",
        ),
        *("concurrency: true", "retries: {lost: true}", "retries: {memory: -1}", "threads: 1000000000000"),
        *("address: ''", "address: h:99999", "address: h:port", "address: http://h:1", "address: 'a b:1'", "store: ''"),
        *("cpus_per_worker: .nan", "start_timeout_s: 1.0e+30", "data_roots: {'': /a}", "a: &a [*a]", "a: !!int x"),
    ],
)
def test_a_cluster_spec_is_read_as_strictly(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text + "\n", encoding="utf-8")
    with pytest.raises(SpecError) as error:
        load(tmp_path / "c.yaml")
    assert str(tmp_path / "c.yaml") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("address", ["auto", "local", "10.0.0.1:6379", "head.svc.cluster:10001", "[::1]:6379"])
def test_addresses_that_can_be_joined(tmp_path, address):
    (tmp_path / "c.yaml").write_text(f"address: '{address}'\n", encoding="utf-8")
    assert load(tmp_path / "c.yaml").address == address
