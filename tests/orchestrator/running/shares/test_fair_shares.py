"""Shares of a cluster: fair by priority, in whole runs, without idle room and without starvation."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.running.shares.fair_shares import Demand, shares, why_waiting

CPU = {"CPU": 1.0}


def of(*demands, capacity=CPU):
    return shares(capacity, demands)


def free(capacity, demands, may):
    """What is left of each resource, in ten-thousandths."""
    left = {name: round(amount * 10_000) for name, amount in capacity.items()}
    for each, runs in zip(demands, may, strict=True):
        for name, amount in each.need.items():
            left[name] -= round(amount * 10_000) * runs
    return left


amount = st.sampled_from([0.1, 0.25, 0.5, 1, 2, 4])
needs = st.one_of(
    st.fixed_dictionaries({"CPU": amount}),
    st.fixed_dictionaries({"CPU": amount, "GPU": st.sampled_from([0.5, 1, 2])}),
)
capacities = st.fixed_dictionaries({"CPU": st.integers(0, 32), "GPU": st.integers(0, 8)})


@st.composite
def demand(draw, need=needs):
    in_flight = draw(st.integers(0, 3))
    wanted = in_flight + draw(st.integers(0, 40))
    return Demand(draw(need), in_flight, wanted, draw(st.sampled_from([0.01, 0.5, 1, 3, 100])))


@given(capacities, st.lists(demand(), max_size=6))
def test_no_running_run_is_ended_none_is_unwanted_and_what_is_given_fits(capacity, demands):
    may = shares(capacity, demands)
    assert all(each.in_flight <= n <= each.wanted for each, n in zip(demands, may, strict=True))
    before = free(capacity, demands, [each.in_flight for each in demands])
    after = free(capacity, demands, may)
    assert all(after[name] >= min(before[name], 0) for name in capacity)
    for each, n in zip(demands, may, strict=True):
        if n > each.in_flight:
            assert all(after[name] >= 0 for name in each.need), "a new run has its place"


@given(capacities, st.lists(demand(st.just(CPU)), max_size=6))
def test_of_runs_of_one_size_no_room_is_left_that_somebody_wants(capacity, demands):
    may = shares(capacity, demands)
    wanting = any(n < each.wanted for each, n in zip(demands, may, strict=True))
    assert not wanting or free(capacity, demands, may)["CPU"] < 10_000


@given(capacities, st.lists(demand(), min_size=1, max_size=6))
def test_room_is_left_only_for_a_study_that_waits_for_it(capacity, demands):
    """Work-conserving, but for what is kept: of the studies whose run would fit into what is left, one waits only
    behind another that wants a resource of its own."""
    may = shares(capacity, demands)
    left = free(capacity, demands, may)
    total = free(capacity, [], [])

    def fits(each, room):
        return all(round(need * 10_000) <= room[name] for name, need in each.need.items())

    waiting = [d for d, n in zip(demands, may, strict=True) if n < d.wanted and fits(d, total)]
    large = [each for each in waiting if not fits(each, left)]
    for each in waiting:
        if fits(each, left):
            assert any(other.need.keys() & each.need.keys() for other in large)


@given(st.integers(1, 64), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_studies_that_want_everything_share_by_priority(cpus, priorities):
    demands = [Demand(CPU, 0, 100, priority) for priority in priorities]
    may = shares({"CPU": cpus}, demands)
    assert sum(may) == cpus
    for one, n in zip(priorities, may, strict=True):
        for other, m in zip(priorities, may, strict=True):
            assert n == 0 or (n - 1) / one <= m / other, "no run goes to a study that has more than another"


@given(st.integers(1, 8), st.lists(demand(st.just(CPU)), min_size=2, max_size=6))
def test_a_study_without_a_run_gets_the_first_that_ends(cpus, others):
    full = [each._replace(in_flight=cpus, wanted=cpus + 40) for each in others[:1]]
    newcomer = Demand(CPU, 0, 1)
    assert of(newcomer, *full, capacity={"CPU": cpus}) == [0, cpus]
    freed = full[0]._replace(in_flight=cpus - 1)
    assert of(newcomer, freed, capacity={"CPU": cpus}) == [1, cpus - 1]


def test_priorities_of_one_and_three_get_one_and_three():
    assert of(Demand(CPU, 0, 9), Demand(CPU, 0, 9, 3), capacity={"CPU": 4}) == [1, 3]
    assert of(Demand(CPU, 0, 9), Demand(CPU, 0, 9, 3), capacity={"CPU": 8}) == [2, 6]


def test_what_one_study_cannot_use_goes_to_others():
    assert of(Demand(CPU, 0, 1, 100), Demand(CPU, 0, 9), capacity={"CPU": 8}) == [1, 7]


def test_resources_are_compared_by_the_one_that_a_study_takes_most_of():
    gpus, cpus = Demand({"CPU": 1, "GPU": 1}, 0, 9), Demand({"CPU": 2}, 0, 9)
    assert of(gpus, cpus, capacity={"CPU": 12, "GPU": 4}) == [4, 4]
    assert of(gpus, cpus, capacity={"CPU": 9, "GPU": 9}) == [5, 2]


def test_room_is_kept_for_a_large_run_but_not_for_one_that_can_never_fit():
    large, small = Demand({"CPU": 4}, 0, 1), Demand(CPU, 3, 9)
    assert of(large, small, capacity={"CPU": 4}) == [0, 3]
    assert of(large._replace(in_flight=1, wanted=2), small, capacity={"CPU": 8}) == [1, 4], "it has as much"
    assert of(large._replace(in_flight=1, wanted=2), small._replace(in_flight=9), capacity={"CPU": 16}) == [1, 9]
    assert of(large._replace(need={"CPU": 5}), small, capacity={"CPU": 4}) == [0, 4]
    assert of(large._replace(need={"CPU": 1, "GPU": 1}), small, capacity={"CPU": 4}) == [0, 4]


def test_shares_of_a_cpu_add_up():
    assert of(Demand({"CPU": 0.1}, 0, 99), Demand({"CPU": 0.1}, 0, 99)) == [5, 5]


def test_why_a_study_waits():
    four, two = Demand({"CPU": 4, "GPU": 1}, 4, 9), Demand({"CPU": 1, "GPU": 2}, 1, 9)
    need, capacity = {"CPU": 1, "GPU": 1}, {"CPU": 64, "GPU": 8}
    assert why_waiting(need, capacity, [four, two, two]) == "waiting for 1 GPU: 3 studies ahead use 8"
    assert why_waiting({"CPU": 2}, {"CPU": 2}, [Demand(CPU, 2, 9)]) == "waiting for 2 CPUs: 1 study ahead uses 2"
    large = [Demand({"CPU": 4}, 0, 1)]
    assert why_waiting(CPU, {"CPU": 4}, large) == "waiting for 1 CPU, kept for the larger runs of another study"


def test_runs_of_other_shapes_in_flight_count_as_what_they_take():
    """A study whose teacher has taken both GPUs is above one with small runs, and its CPU runs have room beside it."""
    capacity = {"CPU": 8, "GPU": 2}
    mixed = Demand({"CPU": 1}, 1, 9, extra={"CPU": 1, "GPU": 2})
    assert shares(capacity, [mixed]) == [7], "2 of 8 CPUs are the teacher's"
    assert shares(capacity, [mixed, Demand({"CPU": 1}, 0, 9)]) == [1, 6]
