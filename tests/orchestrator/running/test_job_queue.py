"""What Tune is given: each run once, and not by two drivers; what another has trained is used."""

import time

import pytest
from ray.tune.search import Searcher

from ablations.study.plan import Run
from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import Job
from orchestrator.running import job_queue
from orchestrator.running.claims import Claims
from orchestrator.running.job_queue import JobQueue
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from trainer.config import parse
from trainer.place import Place


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(job_queue, "LOOK_S", 0.0)
    return Store(tmp_path)


@pytest.fixture
def make(store):
    """make(study, cohorts) -> the queue of a driver, and what it says of runs of other drivers."""

    def of(study, cohorts, **more):
        claims, said = Claims(study, store, Ledger(store.ledger, study)), []
        named = [[job(store, study, name) for name in cohort] for cohort in cohorts]
        done = lambda job: claims.ledger.finished(job.run_id) is not None  # noqa: E731
        waits = lambda job, why: said.append((job.run_id, why))  # noqa: E731
        return JobQueue(named, ClusterSpec(), store, claims, is_done=done, waits=waits, **more), said

    return of


def job(store, study, name):
    role = "teacher" if name.startswith("teacher") else "arm"
    return Job(study, Run(role, name, 0, parse({}), {}, None), name, Place(out_dir=store.run_dir(name)))


def given(suggestion):
    return [settings["run_id"] for settings in suggestion["jobs"]]


def test_two_drivers_share_the_runs_that_both_need(make, store):
    one, said_one = make("one", [["a", "b"], ["c"]])
    two, said_two = make("two", [["b", "d"], ["c"]])
    assert given(one.suggest("1")) == ["a", "b"]
    assert given(two.suggest("1")) == ["d"], "the cohort goes on without the run that another trains"
    assert said_two[0][0] == "b" and said_two[0][1].startswith("trained by study one, pid ")
    assert given(two.suggest("2")) == ["c"]
    assert one.suggest("2") is None is two.suggest("3"), "both wait for a run of the other"

    Ledger(store.ledger, "two").append({"event": "finished", "run_id": "c", "last": {"epoch": 1.0}})
    two.claims.give_back("c")
    assert one.suggest("3") == Searcher.FINISHED, "c has been trained"
    one.claims.give_back("b")  # it has failed: two may try
    assert given(two.suggest("4")) == ["b"]
    assert two.suggest("5") == Searcher.FINISHED
    assert [run_id for run_id, _ in said_one + said_two] == ["c", "b"], "each is said once"


def test_what_a_dead_driver_left_running_is_recorded_before_the_run_goes_on(make, store):
    dead = Ledger(store.ledger, "dead")
    dead.append({"event": "started", "run_id": "a", "study": "dead", "arm": "a", "seed": 0})
    dead.append_epochs("a", [{"epoch": 1.0}])
    queue, _ = make("next", [["a"]])
    assert given(queue.suggest("1")) == ["a"]
    run = Ledger(store.ledger).run("a")
    assert (run.status, len(run.epochs)) == ("interrupted", 1)


def test_students_are_asked_for_when_another_driver_has_trained_their_teacher(make, store):
    other, _ = make("other", [["teacher"]])
    assert given(other.suggest("1")) == ["teacher"]
    students = [[job(store, "one", "student")]]
    asked = []

    def more():
        asked.append(True)
        return students if len(asked) == 1 else []

    one, said = make("one", [["teacher"]], more=more)
    assert one.suggest("1") is None and one.suggest("2") is None and not asked
    Ledger(store.ledger, "other").append({"event": "finished", "run_id": "teacher", "last": {"epoch": 1.0}})
    other.claims.give_back("teacher")
    found = next(found for _ in range(3) if (found := one.suggest("3")) is not None)
    assert given(found) == ["student"]
    assert [run_id for run_id, _ in said] == ["teacher"]


def test_claims_of_many_runs_are_taken_together_or_not_at_all(store):
    ledger = Ledger(store.ledger)
    with Claims("one", store, ledger) as one, Claims("two", store, ledger) as two:
        assert one.take("b")
        assert not two.take_all(["a", "b"])
        assert one.take("a"), "two has given it back"
        assert one.take_all(["a", "b", "c"])
        one.give_back("b")
        assert two.take_all(["b"])
    with Claims("three", store, ledger) as three:
        assert three.take_all(["a", "b", "c"]), "a driver that ends gives all back"


def test_runs_of_others_are_looked_at_once_in_a_while(make, store, monkeypatch):
    monkeypatch.setattr(job_queue, "LOOK_S", 3600.0)
    one, _ = make("one", [["a"]])
    two, _ = make("two", [["a"]])
    assert given(one.suggest("1")) == ["a"]
    monkeypatch.setattr(time, "monotonic", lambda: 10_000.0)
    assert two.suggest("1") is None
    assert two.suggest("2") is None
    one.claims.give_back("a")
    assert two.suggest("3") is None
    monkeypatch.setattr(time, "monotonic", lambda: 20_000.0)
    assert given(two.suggest("4")) == ["a"]
