"""The studies of a store: `transkd list` and `status` name them, and every command knows them by name."""

import re

import pytest
import yaml

from ablations.study.schema import packaged
from orchestrator.state.stored_studies import load_study, stored_studies
from orchestrator.store.ledger import Ledger
from orchestrator.store.provenance import begin
from trainer.config import UserError

STUDY = {
    "base": {
        "data": {"name": "scenes", "size": [64, 128], "options": {"train": 8, "val": 4, "size": [64, 128]}},
        "student": {"name": "segformer_tiny"},
        "optim": {"epochs": 1, "global_batch": 4, "norm_batch": 4},
    },
    "variants": {"a": {}, "b": {"optim.lr": 2.0e-3}},
    "seeds": 2,
}


def launched(driver, name, **changes):
    """Record what a launch of a study records first; its file is gone afterwards."""
    ledger = Ledger(driver.store / "ledger.jsonl")
    begin(name, yaml.safe_dump({"name": name, **STUDY, **changes}), ledger, driver.at)
    return ledger


@pytest.fixture
def store(driver):
    from orchestrator.store.folder import Store

    driver.at = Store(driver.store)
    return driver


@pytest.mark.slow
def test_the_last_text_of_a_study_counts_and_the_last_launch_is_last(store):
    launched(store, "one")
    launched(store, "two")
    ledger = launched(store, "one", seeds=3)
    assert list(stored_studies(ledger)) == ["two", "one"]
    assert load_study("one", ledger).seeds == (0, 1, 2)
    with pytest.raises(UserError, match="unknown study 'tow'; did you mean 'two'"):
        load_study("tow", ledger)


@pytest.mark.slow
def test_list_and_status_name_the_studies_of_the_store(store):
    listed = store.here("list")
    assert listed.code == 0 and all(
        re.search(rf"^{name} +packaged +not started$", listed.out, re.M) for name in packaged()
    )
    assert "holds no study yet" in store.here("status").out
    ledger = launched(store, "mine")
    ledger.append(
        {"event": "study", "study": "old", "text": "name: old\nbase: {optim: {gone: 1}}\nvariants: {a: {}}\n"}
    )
    said = "4 runs: 4 missing; driver: none"
    assert re.search(rf"^mine +in the store +{said}$", store.here("list").out, re.M)
    shown = store.here("status")
    assert shown.code == 0 and f"mine: {said}" in shown.out and "old: cannot be read: " in shown.out
    assert store.here("status", "mine").out == f"mine: {said}\n"


@pytest.mark.slow
@pytest.mark.parametrize("words", [("plan", "--no-probe"), ("report",), ("bundle",)], ids=lambda words: words[0])
def test_a_study_of_the_store_is_known_by_its_name(store, words):
    launched(store, "mine")
    verb, *options = words
    done = store.here(verb, "mine", *options)
    assert done.code == 0 and "mine" in done.out, done.err
    wrong = store.here(verb, "mien", *options)
    assert (wrong.code, wrong.out) == (2, "") and "unknown study 'mien'; did you mean 'mine'" in wrong.err


def test_the_version_is_printed(driver):
    done = driver.here("--version")
    assert done.code == 0 and re.fullmatch(r"transkd .+, numerics version \d+\n", done.out)


def test_names_that_earlier_versions_took_are_read_from_the_store(store):
    ledger = launched(store, "early", variants={"a": {}, " b": {"optim.lr": 2.0e-3}, "b\u200b": {"optim.lr": 3.0e-3}})
    assert set(load_study("early", ledger).compared.overrides) == {"a", " b", "b\u200b"}
