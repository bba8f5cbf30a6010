"""The stream: batches depend on seed, epoch and sample; not on workers, prefetching, or where a run was resumed."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer import rng
from trainer.config import TrainConfig, UserError, parse
from trainer.data import PackedSplit, open_dataset, pack
from trainer.data.stream import HostBatch, Stream, holdout, normalise, to_batch

IMAGES = 11


def _config(**data: object) -> TrainConfig:
    options = {"train": IMAGES, "val": 1, "size": [32, 64]}
    return parse({"data": {"size": [32, 64], "options": options, **data}, "optim": {"global_batch": 4}, "seed": 3})


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSplit:
    """Eleven training scenes of 32x64."""
    cache, config = tmp_path_factory.mktemp("cache"), _config().data
    return pack(open_dataset(config, None, cache), config, "train", cache)


def _equal(a: HostBatch, b: HostBatch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stream")]


STEPS = [
    {"scale": {"range": [0.75, 1.5]}},
    {"crop": {"size": [32, 48], "cat_max_ratio": 0.75}},
    "flip",
    "photometric",
    "blur",
    {"shift": {"pixels": 3}},
]


def test_shapes_and_types(packed: PackedSplit) -> None:
    stream = Stream(packed, _config(), None, 0, 1)
    assert stream.steps_per_epoch == 2
    batch = next(stream.epoch(0))
    assert (batch.image.shape, batch.image.dtype) == ((4, 3, 32, 64), torch.uint8)
    assert (batch.label.shape, batch.label.dtype) == ((4, 32, 64), torch.uint8)
    assert (batch.keys.shape, batch.keys.dtype) == ((4,), torch.int64)
    quarter = Stream(packed, _config(train_labels="quarter"), None, 0, 1)
    assert next(quarter.epoch(0)).label.shape == (4, 8, 16)


def test_quarter_labels_are_reduced_from_the_labels_own_size(tmp_path: Path) -> None:
    """In one step, as by the protocol `paper`: reduced to the input size first, other pixels would be selected."""
    options = {"train": 4, "val": 1, "size": [64, 128]}
    config = _config(options=options, train_labels="quarter", augment="none")
    packed = pack(open_dataset(config.data, None, tmp_path), config.data, "train", tmp_path)
    stream = Stream(packed, config, None, 0, 1)
    (batch,) = stream.epoch(0)
    order = rng.permutation(config.seed, 0, len(packed))
    for sample, label in zip(order.tolist(), batch.label.numpy(), strict=True):
        native = packed.native_label(sample)
        assert native.shape == (64, 128)
        np.testing.assert_array_equal(label, native[4::8, 4::8])


def test_an_epoch_does_not_depend_on_the_epochs_before(packed: PackedSplit) -> None:
    """So a run that is resumed at an epoch sees the batches that it would have seen."""
    stream = Stream(packed, _config(), None, 0, 1)
    list(stream.epoch(0))
    resumed = Stream(packed, _config(), None, 0, 1)
    pairs = list(zip(stream.epoch(1), resumed.epoch(1), strict=True))
    assert len(pairs) == 2
    assert all(_equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("labels", ["full", "quarter"])
def test_several_threads_prepare_the_batches_of_one(threads: int, labels: str, packed: PackedSplit) -> None:
    config = _config(train_labels=labels)
    one, several = (Stream(packed, config, None, 0, 1, threads=count) for count in (1, threads))
    for epoch in range(3):
        pairs = list(zip(one.epoch(epoch), several.epoch(epoch), strict=True))
        assert len(pairs) == 2
        assert all(_equal(ours, theirs) for ours, theirs in pairs)


def test_two_workers_see_the_samples_of_one(packed: PackedSplit) -> None:
    one = Stream(packed, _config(), None, 0, 1)
    two = [Stream(packed, _config(), None, rank, 2) for rank in range(2)]
    for whole, *parts in zip(one.epoch(5), *(stream.epoch(5) for stream in two), strict=True):
        assert [len(part.keys) for part in parts] == [2, 2]
        joined = HostBatch(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        assert _equal(joined, whole)


def test_an_epoch_visits_each_sample_at_most_once_in_an_order_of_its_own(packed: PackedSplit) -> None:
    stream = Stream(packed, _config(), None, 0, 1)
    orders = [torch.cat([batch.keys for batch in stream.epoch(epoch)]).tolist() for epoch in range(2)]
    for epoch, keys in enumerate(orders):
        known = rng.sample_keys(3, epoch, np.arange(IMAGES)).tolist()
        visited = [known.index(key) for key in keys]
        assert len(set(visited)) == 8
        assert visited == rng.permutation(3, epoch, IMAGES)[:8].tolist()


def test_augmentation_belongs_to_the_sample_and_the_epoch(packed: PackedSplit) -> None:
    """The same sample in another subset, at another position, is augmented alike in the same epoch."""
    some = np.array([0, 2, 3, 5, 7, 8])
    everything, subset = Stream(packed, _config(), None, 0, 1), Stream(packed, _config(), some, 0, 1)

    def images(stream: Stream, epoch: int) -> dict[int, bytes]:
        return {
            key: image.numpy().tobytes()
            for batch in stream.epoch(epoch)
            for key, image in zip(batch.keys.tolist(), batch.image, strict=True)
        }

    compared = 0
    for epoch in range(6):
        a, b = images(everything, epoch), images(subset, epoch)
        common = set(a) & set(b)
        assert all(a[key] == b[key] for key in common)
        compared += len(common)
    assert compared >= 12
    seen = {image for epoch in range(6) for image in images(everything, epoch).values()}
    assert len(seen) > 40


def test_indices_are_all_that_is_seen(packed: PackedSplit) -> None:
    some = np.array([1, 4, 6, 9])
    keys = next(Stream(packed, _config(), some, 0, 1).epoch(2)).keys
    assert set(keys.tolist()) == set(rng.sample_keys(3, 2, some).tolist())


@pytest.mark.slow
def test_the_thread_ends_with_the_iterator(packed: PackedSplit) -> None:
    stream = Stream(packed, _config(), None, 0, 1)
    closed = stream.epoch(0)
    next(closed)
    assert _threads()
    closed.close()
    assert not _threads()
    dropped = stream.epoch(0)
    next(dropped)
    del dropped
    gc.collect()
    assert not _threads()
    list(stream.epoch(0))
    assert not _threads()


def test_an_error_in_the_thread_is_raised_in_the_consumer(packed: PackedSplit) -> None:
    stream = Stream(packed, _config(), np.array([0, 1, 2, 3, 4, 5, 6, 99]), 0, 1)
    with pytest.raises(IndexError):
        list(stream.epoch(0))
    assert not _threads()


def test_batches_that_cannot_be_made_are_refused(packed: PackedSplit) -> None:
    with pytest.raises(UserError, match="global_batch 4 exceeds the 3 training images"):
        Stream(packed, _config(), np.arange(3), 0, 1)
    with pytest.raises(UserError, match=r"multiple of the number of workers \(3\) but got 4"):
        Stream(packed, _config(), None, 0, 3)


def test_normalisation(packed: PackedSplit) -> None:
    host = next(Stream(packed, _config(), None, 0, 1).epoch(0))
    unit = to_batch(host, "cpu", "unit")
    assert (unit.image.dtype, unit.label.dtype) == (torch.float32, torch.int64)
    assert torch.equal(unit.image, host.image.to(torch.float32) / 255)
    assert torch.equal(unit.label, host.label.long())
    assert torch.equal(unit.keys, host.keys)
    grey = normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8), "imagenet")[0, :, 0, 0]
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    torch.testing.assert_close(grey, torch.tensor(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("n", "share", "held"), [(240, 0.1, 24), (10, 0.0, 0), (10, 0.01, 1), (11, 0.49, 5)])
def test_holdout_is_a_partition_that_depends_on_n_and_share_alone(n: int, share: float, held: int) -> None:
    learn, select = holdout(n, share)
    assert len(select) == held
    assert sorted([*learn.tolist(), *select.tolist()]) == list(range(n))
    for a, b in zip(holdout(n, share), (learn, select), strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_decide_the_size_of_a_batch(packed: PackedSplit) -> None:
    batch = next(Stream(packed, _config(augment=STEPS), None, 0, 1).epoch(0))
    assert (batch.image.shape, batch.label.shape) == ((4, 3, 32, 48), (4, 32, 48))
    quarter = next(Stream(packed, _config(augment=STEPS, train_labels="quarter"), None, 0, 1).epoch(0))
    assert torch.equal(quarter.image, batch.image)
    assert torch.equal(quarter.label, batch.label[:, 2::4, 2::4])


@pytest.mark.parametrize("epoch", [0, 3])
def test_steps_see_the_same_samples_under_any_workers_threads_and_resumption(packed: PackedSplit, epoch: int) -> None:
    config = _config(augment=STEPS)
    through = Stream(packed, config, None, 0, 1)
    whole = [list(through.epoch(number)) for number in range(epoch + 1)][-1]
    resumed = list(Stream(packed, config, None, 0, 1, threads=3).epoch(epoch))
    parts = [list(Stream(packed, config, None, rank, 4).epoch(epoch)) for rank in range(4)]
    joined = [
        HostBatch(*(torch.cat(tensors) for tensors in zip(*step, strict=True))) for step in zip(*parts, strict=True)
    ]
    assert len(whole) == 2
    assert all(_equal(a, b) and _equal(a, c) for a, b, c in zip(whole, resumed, joined, strict=True))


def test_a_step_draws_the_same_whether_another_is_there_or_not(packed: PackedSplit) -> None:
    """So that runs with and without a step differ in that step alone."""
    crop = {"crop": {"size": [32, 48]}}
    alone, after = (
        next(Stream(packed, _config(augment=steps), None, 0, 1).epoch(0)) for steps in ([crop], ["photometric", crop])
    )
    assert torch.equal(alone.label, after.label)
    assert not torch.equal(alone.image, after.image)


def test_what_steps_uncover_is_the_mean_colour(packed: PackedSplit) -> None:
    steps = [{"scale": {"range": [0.5, 1.0]}}, {"crop": {"size": [32, 64]}}]
    for normalize, colour in (("imagenet", [124, 116, 104]), ("unit", [0, 0, 0])):
        batch = next(Stream(packed, _config(augment=steps, normalize=normalize), None, 0, 1).epoch(0))
        corner = batch.image[:, :, -1, -1].tolist()
        assert corner == [colour] * 4
        assert (batch.label[:, -1, -1] == 255).all()
