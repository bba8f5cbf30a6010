"""The copy to the device: the same batches in the same order, each begun before the one before it is used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from trainer.data.ahead import ahead
from trainer.data.prefetch import on_device, one_ahead
from trainer.data.stream import HostBatch


def batches(count: int, pinned: bool = False) -> Iterator[HostBatch]:
    for k in range(count):
        image = torch.full((2, 3, 64, 128), k, dtype=torch.uint8, pin_memory=pinned)
        yield HostBatch(image, image[:, 0].clone(), torch.tensor([k, -k]))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_copy_begins_before_the_batch_before_it_is_handed_out(count: int) -> None:
    events: list[tuple[str, int]] = []

    def begin(batch: HostBatch) -> Callable[[], HostBatch]:
        k = int(batch.keys[0])
        events.append(("begun", k))

        def wait() -> HostBatch:
            events.append(("waited", k))
            return batch

        return wait

    for batch in one_ahead(batches(count), begin):
        events.append(("used", int(batch.keys[0])))
    assert [k for kind, k in events if kind == "used"] == list(range(count))
    for k in range(count):
        at = [events.index((kind, k)) for kind in ("begun", "waited", "used")]
        assert at == sorted(at)
        if k + 1 < count:
            assert events.index(("begun", k + 1)) < events.index(("used", k)) < events.index(("waited", k + 1))


def test_on_a_cpu_the_batches_are_handed_through_one_by_one() -> None:
    drawn = []

    def watched() -> Iterator[HostBatch]:
        for batch in batches(3):
            drawn.append(batch)
            yield batch

    for position, batch in enumerate(on_device(watched(), torch.device("cpu"))):
        assert batch is drawn[position]
        assert len(drawn) == position + 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_they_are_the_same_bytes_while_it_computes() -> None:
    device = torch.device("cuda")
    work = torch.randn(2048, 2048, device=device)
    for k, batch in enumerate(on_device(batches(50, pinned=True), device)):
        for _ in range(5):
            work = work @ work / 50
        assert batch.image.device.type == "cuda"
        assert bool((batch.image == k).all() and (batch.label == k).all())
        assert batch.keys.tolist() == [k, -k]


@pytest.mark.parametrize(("threads", "most"), [(1, 1), (2, 3), (4, 4)])
def test_results_come_in_order_and_no_further_ahead_than_asked(threads: int, most: int) -> None:
    turns = [threading.Event() for _ in range(12)]
    begun: list[int] = []

    def slow(k: int) -> int:
        begun.append(k)
        if k % 3 == 0:  # the items after it may be ready first
            turns[min(k + 1, 11)].wait(0.05)
        turns[k].set()
        return k * k

    for k, result in enumerate(ahead(slow, range(12), threads=threads, most=most)):
        assert result == k * k
        assert max(begun) <= k + most
    assert sorted(begun) == list(range(12))


def test_an_error_comes_at_its_turn_and_ends_the_threads() -> None:
    def fails_at_2(k: int) -> int:
        if k == 2:
            raise ValueError(f"item {k}")
        return k

    results = ahead(fails_at_2, range(9), threads=3, most=4, name="of-a-test")
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("of-a-test")]
