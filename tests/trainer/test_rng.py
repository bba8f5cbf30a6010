"""Random numbers are a function of (seed, purpose, epoch, sample): pinned values, independence, and no side effects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from trainer import rng

M64 = (1 << 64) - 1


def splitmix(x: int) -> int:
    """SplitMix64's finaliser on Python's integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M64
    return x ^ (x >> 31)


def uniform(keys, salt, n):
    return rng.uniform(keys, torch.full((n,), salt, device=keys.device), torch.arange(n, device=keys.device))


def test_finaliser_is_splitmix64():
    """First outputs of Vigna's splitmix64.c at seed 1234567, so that the reference above is right too."""
    golden = 0x9E3779B97F4A7C15
    outputs = [splitmix((1234567 + i * golden) & M64) for i in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_uniform_is_the_hash_it_says():
    keys = torch.tensor([0, 1, -1, 1 << 62, -(1 << 63)])
    salt = rng.salt("block1.0.attn")
    actual = uniform(keys, salt, 3)
    for i, key in enumerate(keys.tolist()):
        inner = splitmix((key ^ salt) & M64)
        expected = [(splitmix((inner + j * 0x9E3779B97F4A7C15) & M64) >> 40) / 2**24 for j in range(3)]
        assert actual[i].tolist() == expected


def test_numbers_are_pinned():
    """Changing one of these changes every run: raise NUMERICS_VERSION with it."""
    assert rng.derive(0, "order", 0) == 16185230473547831310
    assert rng.salt("dropout") == -4609206815103847996
    assert rng.permutation(0, 0, 8).tolist() == [4, 7, 6, 1, 0, 3, 5, 2]
    assert rng.sample_keys(0, 1, np.arange(2)).tolist() == [-7910343331001364481, -5864523079479329364]
    assert rng.generator(0, "augment").integers(0, 1000, 3).tolist() == [119, 642, 683]


def test_parts_of_a_name_cannot_run_together():
    names = [(1, 2), (12,), ("1", 2), ("12",), (1, "2"), ("1", "2"), (2, 1), (0, "a"), (0, "b")]
    assert len({rng.derive(*name) for name in names}) == len(names)


def test_permutations_are_permutations_that_differ():
    orders = [rng.permutation(seed, epoch, 100) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_sample_keys_depend_on_seed_epoch_and_sample_alone():
    keys = rng.sample_keys(3, 5, np.arange(1000))
    assert keys.dtype == np.int64
    assert keys.shape == (1000,)
    some = np.array([999, 0, 17])
    assert np.array_equal(rng.sample_keys(3, 5, some), keys[some])
    everything = np.concatenate([rng.sample_keys(s, e, np.arange(1000)) for s in range(5) for e in range(20)])
    assert len(np.unique(everything)) == len(everything)


def test_uniform_depends_on_the_key_and_the_salt_alone():
    keys = torch.from_numpy(rng.sample_keys(0, 0, np.arange(64)))
    whole = uniform(keys, 7, 16)
    assert torch.equal(uniform(keys[[5, 2]], 7, 16), whole[[5, 2]])
    assert torch.equal(uniform(keys, 7, 4), whole[:, :4])
    assert not torch.equal(uniform(keys, 8, 16), whole)


def test_uniform_is_uniform_and_below_one():
    keys = torch.from_numpy(rng.sample_keys(0, 0, np.arange(20_000)))
    values = uniform(keys, rng.salt("a"), 10).double()
    assert values.min() >= 0
    assert values.max() < 1
    for column in values.T:
        assert stats.kstest(column.numpy(), "uniform").pvalue > 1e-4
    pairs = torch.histogramdd(values[:, :2].contiguous(), bins=[16, 16], range=[0.0, 1.0, 0.0, 1.0]).hist
    assert stats.chisquare(pairs.flatten().numpy()).pvalue > 1e-4


@pytest.mark.parametrize(
    "pair",
    ["neighbouring samples", "neighbouring epochs", "seeds", "salts", "lanes"],
)
def test_streams_are_uncorrelated(pair):
    n = np.arange(20_000)

    def draw(seed=0, epoch=0, samples=n, salt="a", lane=0):
        return uniform(torch.from_numpy(rng.sample_keys(seed, epoch, samples)), rng.salt(salt), 2)[:, lane].numpy()

    other = {
        "neighbouring samples": draw(samples=n + 1),
        "neighbouring epochs": draw(epoch=1),
        "seeds": draw(seed=1),
        "salts": draw(salt="b"),
        "lanes": draw(lane=1),
    }[pair]
    assert abs(np.corrcoef(draw(), other)[0, 1]) < 4 / np.sqrt(len(n))


def test_initialising_repeats_and_leaves_the_global_state():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    with rng.initialising(0, "student"):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with rng.initialising(0, "student"):
        assert torch.equal(torch.rand(3), first)
    with rng.initialising(0, "pea"):
        assert not torch.equal(torch.rand(3), first)


def test_initialising_restores_after_an_error():
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError), rng.initialising(0):
        torch.rand(-1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_masks_are_the_same_on_a_gpu_and_its_state_is_left():
    keys = torch.from_numpy(rng.sample_keys(0, 0, np.arange(100)))
    assert torch.equal(uniform(keys.cuda(), 5, 8).cpu(), uniform(keys, 5, 8))
    state = torch.cuda.get_rng_state()
    with rng.initialising(0):
        torch.rand(1)
    assert torch.equal(torch.cuda.get_rng_state(), state)
