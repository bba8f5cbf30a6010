"""How many workers a run gets of a range, by the places that are there and the runs that share them."""

import pytest

from orchestrator.running.group_size import largest, others_wait, pays, places, share

SIZES = (1, 2, 4)


def test_a_place_is_on_one_machine():
    need = {"CPU": 2, "GPU": 1, "memory": 0}
    assert places([{"CPU": 8, "GPU": 2}, {"CPU": 3, "GPU": 4}, {"CPU": 1, "GPU": 1}, {"CPU": 16}], need) == 3
    assert places([{"CPU": 0.3}], {"CPU": 0.1}) == 3, "0.3 // 0.1 is 2 in floating point"
    assert places([], need) == 0


@pytest.mark.parametrize(("room", "size"), [(0, 1), (1, 1), (3, 2), (4, 4), (9, 4)])
def test_a_group_is_as_large_as_its_places_and_never_smaller_than_the_lower_number(room, size):
    assert largest(SIZES, room) == size


@pytest.mark.parametrize(
    ("free", "there", "at_once", "size"),
    [
        (4, 4, 1, 4),
        (3, 4, 1, 2),  # another study has one
        (4, 4, 2, 2),
        (2, 4, 2, 2),
        (8, 8, 3, 2),
        (4, 4, 9, 1),
        (4, 4, "auto", 1),
    ],
)
def test_runs_that_start_at_once_share_the_places(free, there, at_once, size):
    assert share(SIZES, free, there, at_once) == size


def test_a_run_near_its_end_does_not_start_another_group():
    assert pays(1, 2, 61) and not pays(1, 2, 59)
    assert pays(3, 4, 121) and not pays(3, 4, 119), "a fourth worker saves a quarter of the time"
    assert not pays(1, 4, 0)


def test_who_has_no_place_comes_first_and_runs_that_would_grow_do_not_stop_each_other():
    ours, placed = {"name": "growth", "state": "PENDING"}, {"name": "", "state": "CREATED"}
    assert not others_wait([ours, placed, {"name": "", "state": "REMOVED"}], "growth")
    assert others_wait([ours, placed, {"name": "", "state": "PENDING"}], "growth")
