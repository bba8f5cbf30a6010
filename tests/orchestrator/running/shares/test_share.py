"""Drivers on one cluster: what the keeper tells each, and what a study does that has its share in flight."""

import sys

import pytest
from ray.exceptions import ActorUnavailableError
from ray.tune.experiment import Experiment
from ray.tune.search import Searcher

from cluster.spec import ClusterSpec
from orchestrator.running import shared_searcher
from orchestrator.running.shared_searcher import SharedSearcher, together
from orchestrator.running.shares.share import Share
from orchestrator.running.shares.share_keeper import SILENT_S, ShareKeeper
from orchestrator.running.tuner import Trials


class Cluster:
    """A keeper and the drivers that ask it, on machines with so many CPUs."""

    def __init__(self, cpus):
        self.now = 0.0
        self.keeper = ShareKeeper(lambda: {"CPU": cpus}, lambda: self.now)

    def ask(self, driver, in_flight, wanted, grows_to=None, **more):
        demand = {"need": {"CPU": 1.0}, "in_flight": in_flight, "wanted": wanted, **more}
        return self.keeper.ask(driver, demand, grows_to or {})


def test_a_driver_alone_is_told_to_start_what_it_wants():
    assert Cluster(2).ask("one", 0, 7) == (7, "")


def test_a_second_study_gets_the_place_of_the_run_of_the_first_that_ends():
    cluster = Cluster(2)
    cluster.ask("one", 0, 2)
    cluster.ask("one", 2, 2)
    assert cluster.ask("two", 0, 2) == (0, "waiting for 1 CPU: 1 study ahead uses 2")
    assert cluster.ask("one", 1, 2) == (1, "waiting for 1 CPU: 1 study ahead uses 1")
    assert cluster.ask("two", 0, 2) == (1, "waiting for 1 CPU: 1 study ahead uses 1")
    assert cluster.ask("one", 0, 2)[0] == 1, "each has its share"


def test_what_a_driver_was_promised_is_no_other_drivers():
    cluster = Cluster(4)
    cluster.ask("one", 0, 1)
    assert cluster.ask("two", 0, 4)[0] == 3
    assert cluster.ask("one", 0, 4)[0] == 1, "two may be starting three"
    assert cluster.ask("two", 1, 4)[0] == 2, "one may be starting one, and comes first with another"
    assert cluster.ask("one", 1, 4)[0] == 2
    assert cluster.ask("two", 1, 1)[0] == 1
    assert cluster.ask("one", 1, 4)[0] == 3, "two does not want them any more"


def test_three_studies_take_turns_at_one_place():
    cluster = Cluster(1)
    order, names = [], ["one", "two", "three"]
    for name in names:
        cluster.ask(name, 0, 1)
    for _ in range(7):
        (name,) = [name for name in names if cluster.ask(name, 0, 1)[0]]
        order.append(name)
        cluster.ask(name, 1, 1)
        cluster.ask(name, 0, 1)
    assert order == ["one", "two", "three", "one", "two", "three", "one"]


def test_priorities_share_a_cluster_as_runs_end():
    cluster, flying = Cluster(4), {"low": 4, "high": 0}
    cluster.ask("low", 4, 4, priority=1)
    cluster.ask("high", 0, 4, priority=3)
    for _ in range(9):
        flying["low"] -= 1
        for name, priority in (("low", 1), ("high", 3)):
            flying[name] = cluster.ask(name, flying[name], 4, priority=priority)[0]
    assert flying == {"low": 1, "high": 3}


def test_an_autoscalers_limit_counts_whoever_states_it():
    cluster = Cluster(0)
    cluster.ask("one", 0, 9, grows_to={"CPU": 8})
    assert cluster.ask("two", 0, 9)[0] == 0, "one was promised all when it was alone"
    assert cluster.ask("one", 4, 9, grows_to={"CPU": 8})[0] == 4
    assert cluster.ask("two", 0, 9)[0] == 4


def test_whether_a_study_waits_is_known_to_runs_that_could_grow():
    cluster = Cluster(2)
    cluster.ask("one", 0, 2)
    cluster.ask("one", 2, 2)
    assert not cluster.keeper.someone_waits()
    cluster.ask("two", 0, 1)
    assert cluster.keeper.someone_waits()
    cluster.now = SILENT_S + 1
    assert not cluster.keeper.someone_waits(), "who is dead waits no more"


def test_a_driver_that_is_silent_or_leaves_has_no_share():
    cluster = Cluster(1)
    cluster.ask("killed", 0, 1)
    cluster.ask("killed", 1, 1)
    assert cluster.ask("two", 0, 1)[0] == 0
    cluster.now = SILENT_S + 1
    assert cluster.ask("two", 0, 1) == (1, "")
    assert cluster.ask("killed", 1, 1)[0] == 1, "it was only slow: what runs is not ended"
    cluster.keeper.leave("killed")
    cluster.keeper.leave("two")
    assert not cluster.keeper.is_idle()
    cluster.now += SILENT_S + 1
    assert cluster.keeper.is_idle()


class Queue(SharedSearcher):
    """So many trials, of these numbers of workers."""

    def __init__(self, trials, sizes=(1,)):
        super().__init__()
        self.left = trials
        self.sizes = sizes

    def startable(self):
        return self.left

    def next_config(self):
        self.left -= 1
        return together([{"resources": {"CPU": 1}, "group_sizes": self.sizes}]) if self.left >= 0 else Searcher.FINISHED


@pytest.fixture
def share(monkeypatch):
    """share(cluster, name): the share of a driver that asks this keeper, without Ray."""

    def of(cluster, name):
        share = Share(ClusterSpec(address="auto"), 2, print)
        monkeypatch.setattr(share, "_answer", lambda: cluster.ask(name, share._in_flight, share._wanted))
        return share

    return of


def test_a_study_above_its_share_starts_nothing_and_says_so_until_it_may(share, monkeypatch):
    monkeypatch.setattr(shared_searcher, "LOOK_S", 0.0)
    cluster, said = Cluster(2), []
    queue = Queue(3)
    queue.keep_to(share(cluster, "one"), said.append)
    assert queue.ready()
    trials = Trials(queue, 2)
    trials.add_configurations([Experiment("one", run=lambda config: None, num_samples=sys.maxsize)])
    one, two = trials.next_trial(), trials.next_trial()
    assert not trials.is_finished() and not said, "it has as many as it may have on its own"
    assert trials.next_trial() is None
    cluster.ask("two", 0, 1)
    trials.on_trial_complete(one.trial_id)
    assert trials.is_finished() and trials.next_trial() is None
    assert said == ["waiting for 1 CPU: 1 study ahead uses 1"]
    cluster.keeper.leave("two")
    trials.on_trial_complete(two.trial_id)
    assert not trials.is_finished() and said[1:] == [""]
    assert trials.next_trial() is not None and trials.next_trial() is None
    assert trials.is_finished()


class Asked:
    """A share that holds nothing back, and remembers what it was asked."""

    def __init__(self):
        self.last = None

    def holds_back(self, in_flight, more, need, held):
        self.last = in_flight, more, need, {name: amount for name, amount in held.items() if amount}
        return False


def test_the_share_is_asked_for_what_the_next_trial_needs_and_all_others_take():
    queue, asked = Queue(3, sizes=(2, 4)), Asked()
    queue.keep_to(asked, lambda why: None, {"CPU": 8.0})
    assert queue.ready()
    assert asked.last == (0, 3, {"CPU": 2}, {}), "the one that is prepared, and two in the queue"
    queue.suggest("a")
    assert not queue.is_held() and asked.last == (1, 2, {"CPU": 8.0}, {"CPU": 2})
    queue.suggest("b")
    queue.on_trial_result("a", {"epoch": 1.0, "workers": 4})
    assert not queue.is_held() and asked.last == (2, 1, {"CPU": 8.0}, {"CPU": 6}), "one has grown"
    queue.on_trial_result("a", {"epoch": 2.0, "workers": 2})
    queue.on_trial_complete("b")
    assert not queue.is_held() and asked.last == (1, 1, {"CPU": 8.0}, {"CPU": 2})


def test_a_run_that_has_grown_counts_against_its_study():
    cluster = Cluster(4)
    grown = {"extra": {"CPU": 2.0}}
    cluster.ask("one", 1, 2, **grown)
    assert cluster.ask("two", 1, 2)[0] == 1, "one was promised a second run when it was alone"
    assert cluster.ask("one", 1, 2, **grown)[0] == 1, "it takes three of four"
    assert cluster.ask("two", 0, 2)[0] == 1


def test_a_keeper_that_fails_holds_no_study_back_and_it_is_said_once(monkeypatch):
    asked, said = [], []
    share = Share(ClusterSpec(address="auto"), 2, said.append)

    def fails():
        asked.append(True)
        raise ActorUnavailableError("gone", None)

    monkeypatch.setattr(share, "_answer", fails)
    monkeypatch.setattr("orchestrator.running.shares.share.LOOK_S", 0.0)
    assert not any(share.holds_back(in_flight, 9) for in_flight in range(4))
    assert len(asked) == 1, "it is asked again later, not at each run"
    monkeypatch.setattr(share, "_without_until", 0.0)
    assert not share.holds_back(4, 9) and len(asked) == 2
    (line,) = said
    assert line.startswith("what shares out the cluster does not answer (") and "gone" in line


def test_a_mistake_of_ours_is_not_taken_for_a_keeper_that_fails(monkeypatch):
    share = Share(ClusterSpec(address="auto"), 2, print)
    monkeypatch.setattr(share, "_answer", lambda: {}["no such name"])
    with pytest.raises(KeyError):
        share.holds_back(0, 9)
