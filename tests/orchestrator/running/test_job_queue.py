"""What Tune is given: each run once, and not by two drivers; what another has trained is used."""

import pytest
from ray.tune.search import Searcher

from ablations.study.plan import Run
from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import Job
from orchestrator.running import shared_searcher
from orchestrator.running.claims import Claims
from orchestrator.running.job_queue import JobQueue
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from trainer.config import parse
from trainer.place import Place


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_searcher, "LOOK_S", 0.0)
    return Store(tmp_path)


@pytest.fixture
def make(store):
    """make(study, cohorts) -> the queue of a driver, and what it says of runs of other drivers."""

    def of(study, cohorts, spec=None, **more):
        claims, said = Claims(study, store, Ledger(store.ledger, study)), []
        named = [[job(store, study, name) for name in cohort] for cohort in cohorts]
        done = lambda job: claims.ledger.finished(job.run_id) is not None  # noqa: E731
        waits = lambda job, why: said.append((job.run_id, why))  # noqa: E731
        return JobQueue(named, spec or ClusterSpec(), store, claims, is_done=done, waits=waits, **more), said

    return of


def job(store, study, name):
    role = "teacher" if name.startswith("teacher") else "arm"
    return Job(study, Run(role, name, 0, parse({}), {}, None), name, Place(out_dir=store.run_dir(name)))


def given(suggestion):
    return [settings["run_id"] for settings in suggestion["jobs"]]


def ends(queue, trial, *names):
    """A trial ends, and these of its runs have finished."""
    for name in names:
        queue.claims.ledger.append({"event": "finished", "run_id": name, "last": {"epoch": 1.0}})
        queue.claims.give_back(name)
    queue.on_trial_complete(trial)


def test_two_drivers_share_the_runs_that_both_need(make, store):
    one, said_one = make("one", [["a", "b"], ["c"]])
    two, said_two = make("two", [["b", "d"], ["c"]])
    assert given(one.suggest("1")) == ["a", "b"]
    assert given(two.suggest("1")) == ["d"], "the cohort goes on without the run that another trains"
    assert said_two[0][0] == "b" and said_two[0][1].startswith("trained by study one, pid ")
    assert given(two.suggest("2")) == ["c"]
    assert one.suggest("2") is None is two.suggest("3"), "both may have to train a run of the other"
    ends(two, "1", "d")
    ends(two, "2", "c")
    assert two.suggest("4") == Searcher.FINISHED, "Tune gives back what it holds"
    assert one.suggest("3") == Searcher.FINISHED, "c has been trained"
    ends(one, "1", "a")
    one.claims.give_back("b")  # it has failed: two may try
    assert not one.ready()
    assert two.ready() and given(two.suggest("5")) == ["b"]
    ends(two, "5", "b")
    assert not two.ready()
    assert [run_id for run_id, _ in said_one + said_two] == ["c", "b"], "each is said once"


def test_what_is_waited_for_comes_before_the_rest_and_is_not_kept_from_others(make, store):
    one, _ = make("one", [["teacher"]])
    assert given(one.suggest("1")) == ["teacher"]
    two, _ = make("two", [["teacher"], ["a"], ["b"], ["c"]])
    assert given(two.suggest("1")) == ["a"]
    one.claims.give_back("teacher")  # killed
    assert given(two.suggest("2")) == ["teacher"]
    two.claims.give_back("teacher")
    three, _ = make("three", [["b"], ["c"], ["teacher"]])
    assert [given(three.suggest(name)) for name in "123"] == [["b"], ["c"], ["teacher"]]


def test_what_a_dead_driver_left_running_is_recorded_before_the_run_goes_on(make, store):
    dead = Ledger(store.ledger, "dead")
    dead.append({"event": "started", "run_id": "a", "study": "dead", "arm": "a", "seed": 0})
    dead.append_epochs("a", [{"epoch": 1.0}])
    queue, _ = make("next", [["a"]])
    assert given(queue.suggest("1")) == ["a"]
    run = Ledger(store.ledger).run("a")
    assert (run.status, len(run.epochs)) == ("interrupted", 1)


def test_a_run_that_pauses_goes_on_without_an_event_unless_another_driver_had_it(store):
    ledger = Ledger(store.ledger, "one")

    def kinds():
        return [event["event"] for event in Ledger(store.ledger).events()]

    with Claims("one", store, ledger) as one, Claims("two", store, Ledger(store.ledger, "two")) as two:
        assert one.take("a")
        ledger.append({"event": "started", "run_id": "a", "study": "one", "arm": "a", "seed": 0})
        for _ in range(2):
            one.give_back("a")
            assert one.take("a") and kinds() == ["started"]
        one.give_back("a")
        assert two.take("a") and kinds() == ["started", "interrupted"]
        two.give_back("a")
        assert one.take("a") and kinds() == ["started", "interrupted"]


def test_students_are_asked_for_when_another_driver_has_trained_their_teacher(make, store):
    other, _ = make("other", [["teacher"]])
    assert given(other.suggest("1")) == ["teacher"]
    students = [[job(store, "one", "student")]]
    asked = []

    def more():
        asked.append(True)
        return students if len(asked) == 1 else []

    one, said = make("one", [["teacher"]], more=more)
    assert one.suggest("1") == Searcher.FINISHED and not asked
    ends(other, "1", "teacher")
    assert one.ready() and given(one.suggest("2")) == ["student"]
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
    looks = []
    one, _ = make("one", [["a"]])
    two, _ = make("two", [["b"], ["a"]])
    assert given(one.suggest("1")) == ["a"] and given(two.suggest("1")) == ["b"]
    monkeypatch.setattr(shared_searcher, "LOOK_S", 3600.0)
    monkeypatch.setattr(two, "_look_elsewhere", lambda: looks.append(True))
    assert [two.suggest("2") for _ in range(9)] == [None] * 9
    assert len(looks) == 1
    two.on_trial_complete("1")
    assert two.suggest("3") == Searcher.FINISHED and len(looks) == 2


def test_runs_beyond_the_places_of_their_shape_wait_and_let_others_pass(make):
    """More would make an autoscaler start machines that are meant for others."""
    spec = ClusterSpec(overrides={"wide": {"cpus_per_worker": 2}, "teacher": {"gpus_per_worker": 0.5}})
    narrow, wide, teacher = (1, 1, 0), (1, 2, 0), (1, 1, 0.5)
    cohorts = [["teacher"], ["a"], ["b"], ["wide"], ["c"]]
    queue, _ = make("one", cohorts, spec, at_once={narrow: 1, wide: 1, teacher: 1})
    found = [queue.suggest(trial) for trial in "123"]
    assert [given(each) for each in found] == [["teacher"], ["a"], ["wide"]]
    assert [each["jobs"][0]["resources"] for each in found] == [{"CPU": 1, "GPU": 0.5}, {"CPU": 1}, {"CPU": 2}]
    assert queue.suggest("4") is None
    ends(queue, "2", "a")
    assert given(queue.suggest("5")) == ["b"]
    ends(queue, "3", "wide")
    assert queue.suggest("6") is None, "c has no place, and nothing else is left"
    ends(queue, "5", "b")
    assert given(queue.suggest("7")) == ["c"]


def test_a_run_whose_override_is_a_range_may_have_each_number_that_divides_its_batch(make):
    spec = ClusterSpec(concurrency=9, overrides={"teacher": {"workers": [1, 4]}})
    queue, _ = make("one", [["teacher"], ["a"]], spec, sharing=2)
    teacher, arm = (queue.suggest(trial)["jobs"][0] for trial in "12")
    assert (teacher["group_sizes"], teacher["workers"], teacher["at_once"]) == ((1, 2, 4), 4, 2)
    assert (arm["group_sizes"], arm["workers"]) == ((1,), 1)


def test_the_share_is_asked_for_what_the_next_job_needs(make):
    spec = ClusterSpec(cpus_per_worker=2, overrides={"teacher": {"cpus_per_worker": 4}})
    queue, _ = make("one", [["a"], ["teacher"]], spec)
    assert queue.next_need() == {"CPU": 2.0}
    queue.suggest("1")
    assert queue.next_need() == {"CPU": 4.0}
    queue.suggest("2")
    assert queue.next_need() is None, "the need of all runs"
