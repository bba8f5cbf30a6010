"""Machines without the store or the data take no run; those with a failed GPU only where no other has room."""

import pytest

from cluster.spec import ClusterSpec
from orchestrator.running.machines import machine_watch
from orchestrator.running.machines.avoided import Avoided, machines_of, selector, without
from orchestrator.running.machines.machine_watch import MachineWatch, lines
from orchestrator.running.machines.this_machine import missing
from orchestrator.store.folder import Store
from trainer.config import UserError

JOB = {"resources": {"CPU": 2, "GPU": 0}, "group_sizes": [2, 4]}
BLIND, FAULTY = Avoided("b has no store", True), Avoided("a GPU of f failed", False)


def node(name, cpus=4, alive=True):
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus}}


@pytest.mark.parametrize(
    ("avoided", "nodes", "out"),
    [
        ({}, [node("a")], None),
        ({"f": FAULTY}, [node("a"), node("f")], "!in(f)"),
        ({"f": FAULTY}, [node("a", cpus=2), node("f")], None),
        ({"f": FAULTY}, [node("a", alive=False), node("f")], None),
        ({"b": BLIND}, [node("b")], "!in(b)"),
        ({"b": BLIND, "f": FAULTY}, [node("a"), node("b"), node("f")], "!in(b,f)"),
        ({"b": BLIND, "f": FAULTY}, [node("b"), node("f")], "!in(b)"),
    ],
)
def test_which_machines_a_run_may_have(avoided, nodes, out):
    assert selector(avoided, nodes, JOB) == ({"ray.io/node-id": out} if out else {})


def test_a_machine_has_room_for_workers_of_a_part_of_a_cpu():
    job = {"resources": {"CPU": 0.1}, "group_sizes": [3]}
    assert selector({"f": FAULTY}, [node("a", cpus=0.3), node("f")], job) == {"ray.io/node-id": "!in(f)"}


def test_each_machine_is_named_once_and_the_end_comes_where_none_is_left():
    there = {"CPU": 1, "GPU": 0}
    b, f = ("b", ""), ("f", "")
    found = {b: BLIND, f: FAULTY}
    assert lines(found, {b}, [node("a"), node("b")], there, "a") == ["b has no store"]
    assert lines(found, {b, f}, [node("b"), node("f")], there, "a") == [BLIND.why, FAULTY.why]
    (said,) = lines({b: BLIND}, {b}, [node("a", cpus=0), node("b")], there, "a")
    assert said == "b has no store; until another machine comes, runs wait"
    with pytest.raises(UserError, match=r"^no machine has room for a run: b has no store$"):
        lines({b: BLIND}, {b}, [node("b")], there, "b")
    with pytest.raises(UserError, match="no machine has room"):
        lines({(name, ""): BLIND for name in "bcd"}, {("d", "")}, [node(name) for name in "bcd"], there, "a")
    assert lines({f: FAULTY}, {f}, [node("f")], there, "f") == ["a GPU of f failed"], "it may be taken again"


def test_a_machine_takes_runs_again_once_its_failed_gpus_are_held():
    held = Avoided("GPU 1 of f failed", False, ("1",), held=True)
    other = Avoided("GPU 2 of f failed", False, ("2",))
    assert machines_of({("f", "1"): held}) == {}
    assert machines_of({("f", "1"): held, ("f", "2"): other}) == {"f": other}
    assert machines_of({("f", ""): BLIND, ("f", "1"): other}) == {"f": BLIND}, "what it lacks weighs more"


def gpus(name, count):
    return {"NodeID": name, "NodeManagerHostname": name, "Alive": True, "Resources": {"CPU": 8, "GPU": count}}


def test_a_held_gpu_is_no_room():
    job, nodes = {"resources": {"CPU": 1, "GPU": 1}, "group_sizes": [1]}, [gpus("a", 1), gpus("b", 1)]
    failed = {"b": Avoided("GPU 0 of b failed", False, ("0",))}
    assert selector(failed, nodes, job) == {"ray.io/node-id": "!in(b)"}
    assert selector(failed, without({"a": {"0"}}, nodes), job) == {}


@pytest.mark.parametrize(
    ("machines", "lost", "spec", "room"),
    [
        ({"a": 4}, {"a": {"1"}}, {}, True),
        ({"a": 4}, {"a": {"0", "1", "2"}}, {}, True),
        ({"a": 4}, {"a": {"0", "1", "2", "3"}}, {}, False),
        ({"a": 1, "b": 4}, {"a": {"0"}}, {}, False),  # nothing is left of this machine
        ({"a": 4}, {"a": {"1"}}, {"workers": 4}, False),
        ({"a": 4}, {"a": {"1"}}, {"workers": [2, 4]}, True),
        ({"a": 4, "b": 1}, {"a": {"1"}}, {"workers": 4}, True),
        ({"a": 4, "b": 1}, {"a": {"1"}, "b": {"0"}}, {"workers": 4}, False),
        ({"a": 4}, {"a": {"1"}}, {"overrides": {"teachers": {"workers": 4}}}, False),
        ({"a": 4}, {"a": {"1"}}, {"gpus_per_worker": 2}, True),
        ({"a": 4}, {"a": {"1", "2", "3"}}, {"gpus_per_worker": 2}, False),
    ],
)
def test_which_failed_gpus_a_study_can_do_without(machines, lost, spec, room):
    watch = MachineWatch(ClusterSpec.model_validate({"gpus_per_worker": 1, **spec}))
    assert watch._have_room("a", lost, [gpus(name, count) for name, count in machines.items()]) == room


@pytest.mark.parametrize("lacks", [False, True])
def test_a_machine_without_the_store_is_no_room_for_what_a_failed_gpu_ran(lacks, monkeypatch):
    held = []

    class Held:
        """Keeps what is to be held."""

        def __init__(self, launch, node):
            self.node = node

        def look(self, failed, total):
            held.append((self.node, failed))
            return True

        def release(self):
            held.clear()

    monkeypatch.setattr(machine_watch, "Hold", Held)
    monkeypatch.setattr(machine_watch, "launches_that_hold", set)
    monkeypatch.setattr(machine_watch, "held_by", lambda launches, timeout_s: {})
    monkeypatch.setattr(machine_watch, "avoid", lambda *given: None)
    found = {("b", "0"): Avoided("GPU 0 of b failed (CUDA error: uncorrectable ECC error)", False, ("0",))}
    watch = MachineWatch(ClusterSpec.model_validate({"gpus_per_worker": 1, "workers": 2}))
    watch._hold(found | ({("a", ""): Avoided("no store", True)} if lacks else {}), [gpus("a", 2), gpus("b", 2)])
    assert held == ([] if lacks else [("b", {"0"})])
    watch._hold(found | {("b", ""): Avoided("no store", True)}, [gpus("a", 2), gpus("b", 2)])
    assert held == [], "what is held of a machine goes with it"


def test_what_a_machine_lacks(tmp_path):
    store, other, images = Store(tmp_path / "store"), Store(tmp_path / "other"), tmp_path / "images"
    seen = store.settings
    assert missing(seen, None) == ""
    for wrong in ({"identity": other.identity}, {"identity": ""}, {"root": str(tmp_path / "absent")}):
        settings = seen | wrong
        assert missing(settings, None) == f"the driver's store {settings['root']} is not there; mount it there"
    assert missing(seen, images) == f"no data in {images} there; mount or copy them there"
    images.mkdir()
    assert missing(seen, images) == f"no data in {images} there; mount or copy them there", "nothing is mounted on it"
    (images / "one.png").touch()
    assert missing(seen, images) == ""
