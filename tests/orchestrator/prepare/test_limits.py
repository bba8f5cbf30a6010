"""Limits of the deployed student: latency is measured here, or known from the ledger, or refused with the remedy."""

import json

import pytest
import yaml

from ablations.study.limits import Limits
from cluster.spec import ClusterSpec
from orchestrator.prepare.limits import LimitsCheck
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from trainer.config import UserError, parse

TINY = {"student": {"name": "segformer_tiny"}, "data": {"name": "scenes", "size": [64, 128]}}
COST = {"params_m": 0.06, "gmacs": 0.004, "gmacs_paper": 0.003}


@pytest.fixture
def bounds(tmp_path):
    """bounds(spec's words, limits): of an empty store in one folder."""

    def make(limits, **spec):
        store = Store(tmp_path / "store")
        return LimitsCheck(Limits(**limits), ClusterSpec(**spec), store, Ledger(store.ledger))

    return make


def finish(bounds, run_id, config, device, latency_ms):
    """A run that has ended on another machine."""
    folder = bounds.store.run_dir(run_id)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(parse(config).model_dump(mode="json")))
    facts = {"last": {}, "complexity": {"latency_ms": latency_ms}, "environment": {"device": device}}
    bounds.ledger.append({"event": "finished", "run_id": run_id, "key": parse(config).key, "study": "other", **facts})


def test_without_a_limit_on_it_nothing_is_measured(bounds):
    bounds({"params_m": 1}, address="auto").refuse({"arm": parse(TINY)}, {"arm": COST})


def test_elsewhere_latency_is_what_a_run_there_measured_last(bounds):
    remote = bounds({"latency_ms": 20}, address="auto", gpus_per_worker=1)
    with pytest.raises(UserError) as error:
        remote.refuse({"arm": parse(TINY)}, {"arm": COST})
    assert "there is no latency of segformer_tiny at 3x64x128 on the cluster's cuda" in str(error.value)
    assert "finish one run of it there" in str(error.value)
    finish(remote, "a", TINY, "cpu", 1.0)
    finish(remote, "b", TINY | {"data": {"name": "scenes", "size": [96, 128]}}, "cuda", 2.0)
    finish(remote, "c", TINY | {"student": {"name": "segformer_mini"}}, "cuda", 3.0)
    with pytest.raises(UserError, match="there is no latency of"):
        remote.latency_ms(parse(TINY))
    finish(remote, "d", TINY | {"optim": {"lr": 1.0}}, "cuda:0", 25.0)
    with pytest.raises(UserError, match=r"limits: arm: latency_ms 25 is above 20; take a smaller student"):
        remote.refuse({"arm": parse(TINY)}, {"arm": COST})


def test_two_folders_of_a_users_own_with_other_classes_or_channels_are_other_networks(bounds):
    def own(classes, channels=3):
        options = {"classes": classes, "holdout": {"val": 0.5}, "channels": channels}
        data = {"name": "folder", "size": [64, 128], "options": options, "normalize": "unit"}
        return TINY | {"data": data}

    remote = bounds({"latency_ms": 20}, address="auto", gpus_per_worker=1)
    finish(remote, "a", own(["road", "car"]), "cuda", 5.0)
    assert remote.latency_ms(parse(own(["road", "bus"]))) == 5.0
    for other in (own(["road", "car", "sky"]), own(["road", "car"], channels=1)):
        with pytest.raises(UserError, match="there is no latency of"):
            remote.latency_ms(parse(other))


def test_what_was_told_once_stays(bounds):
    remote = bounds({"latency_ms": 20}, address="auto")
    finish(remote, "a", TINY, "cpu", 7.0)
    assert remote.latency_ms(parse(TINY)) == 7.0
    finish(remote, "b", TINY, "cpu", 9.0)
    assert remote.latency_ms(parse(TINY)) == 7.0, "a search's proposal is feasible today and tomorrow, or never"


@pytest.mark.slow
def test_here_latency_is_measured_once(bounds):
    local = bounds({"latency_ms": 20})
    measured = local.latency_ms(parse(TINY))
    assert 0 < measured < 1000
    (file,) = (local.store.cache / "latency").iterdir()
    file.write_text(json.dumps({"latency_ms": 21.5}))
    with pytest.raises(UserError, match=r"other: latency_ms 21.5 is above 20"):
        local.refuse({"other": parse(TINY | {"seed": 3})}, {"other": COST})
