"""Grouped BatchNorm: PyTorch's own where there is one group, and the same numbers however a batch was split."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainer.config import UserError
from trainer.models.norm import GroupedBatchNorm1d, GroupedBatchNorm2d, commit, set_norm_batch

C = 5


def data(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 + 2 * torch.randn(n, C, 4, 6, generator=generator, dtype=torch.float64)).to(dtype)


def make(group: int | None = None, dtype: torch.dtype = torch.float64, **options: float) -> GroupedBatchNorm2d:
    norm = GroupedBatchNorm2d(C, **options).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 1.5, C))
        norm.bias.copy_(torch.linspace(-1, 1, C))
    if group:
        set_norm_batch(norm, group)
    return norm


def alone(sums: Tensor) -> Tensor:
    """The all-reduce of one worker."""
    return sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_group_is_batch_norm(dtype):
    ours = make(dtype=dtype)
    theirs = nn.BatchNorm2d(C).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    for step in range(3):
        x = data(4, step, dtype).requires_grad_()
        y = x.detach().clone().requires_grad_()
        out, expected = ours(x), theirs(y)
        torch.testing.assert_close(out, expected)
        out.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(x.grad, y.grad)
        commit(ours, alone)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(data(1, 9, dtype)), theirs(data(1, 9, dtype)))


def test_state_dict_is_batch_norms_own():
    assert list(make().state_dict()) == list(nn.BatchNorm2d(C).state_dict())


def test_each_group_has_its_own_statistics():
    x = data(6)
    out = make(group=2)(x)
    for i in (0, 2, 4):
        torch.testing.assert_close(out[i : i + 2], make()(x[i : i + 2]))
    assert not torch.allclose(out, make()(x))


@pytest.mark.parametrize("micro", [2, 4, 6, 12])
def test_micro_batches_do_not_move_the_running_statistics(micro):
    x = data(12)
    whole, split = make(group=2), make(group=2)
    out = whole(x)
    parts = torch.cat([split(part) for part in x.split(micro)])
    commit(whole, alone)
    commit(split, alone)
    torch.testing.assert_close(parts, out, rtol=0, atol=0)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(split.state_dict()[key], value, rtol=1e-12, atol=1e-12)
    assert whole.num_batches_tracked == 1


def test_workers_do_not_move_the_running_statistics():
    """Two ranks, one with two groups and one with one: the sums are added, so groups count equally."""
    x = data(6)
    whole, ranks = make(group=2), [make(group=2), make(group=2)]
    whole(x)
    ranks[0](x[:4])
    ranks[1](x[4:])
    commit(whole, alone)
    total = ranks[0].pending + ranks[1].pending
    for norm in ranks:
        commit(norm, lambda sums: total)
        torch.testing.assert_close(norm.running_mean, whole.running_mean)
        torch.testing.assert_close(norm.running_var, whole.running_var)


def test_running_statistics_are_the_average_over_groups():
    norm = make(group=2, momentum=0.25)
    x = data(4)
    norm(x)
    commit(norm, alone)
    groups = [part.transpose(0, 1).flatten(1) for part in x.split(2)]
    mean = torch.stack([g.mean(1) for g in groups]).mean(0)
    var = torch.stack([g.var(1) for g in groups]).mean(0)
    torch.testing.assert_close(norm.running_mean, 0.25 * mean)
    torch.testing.assert_close(norm.running_var, 0.75 + 0.25 * var)


def test_nothing_moves_before_the_commit_and_nothing_twice():
    norm = make()
    norm(data(4))
    assert not norm.running_mean.any()
    commit(norm, alone)
    after = norm.running_mean.clone()
    assert after.any()
    assert not norm.pending.any()
    commit(norm, alone)  # a step whose forward never reached this norm
    assert torch.equal(norm.running_mean, after)
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_updated_at_once_are_those_updated_one_by_one(dtype):
    norms = nn.ModuleList([make(dtype=dtype, group=group, momentum=m) for group, m in ((2, 0.1), (4, 0.25), (2, 0.1))])
    for step in range(3):
        for norm in norms[:2]:  # no forward pass reaches the third
            norm(data(4, step, dtype))
        expected = []
        for norm in norms[:2]:
            mean, var = (norm.pending[:-1] / norm.pending[-1]).to(dtype).chunk(2)
            expected.append(
                [running.lerp(new, norm.momentum) for running, new in zip(norm.statistics, (mean, var), strict=True)]
            )
        commit(norms, alone)
        for norm, statistics in zip(norms, expected, strict=False):
            assert all(torch.equal(*pair) for pair in zip(norm.statistics, statistics, strict=True))
            assert norm.num_batches_tracked == step + 1
    assert not norms[2].running_mean.any() and norms[2].num_batches_tracked == 0


def test_evaluation_touches_no_state_and_couples_no_samples():
    norm = make(group=4)
    norm(data(4))
    commit(norm, alone)
    norm.eval()
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    x = data(3)
    torch.testing.assert_close(norm(x)[1:2], norm(x[1:2]))
    assert not norm.pending.any()
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


def test_a_frozen_norm_is_not_committed():
    frozen, live = make(), make()
    both = nn.ModuleList([frozen.eval(), live])
    frozen(data(4)), live(data(4))
    commit(both, alone)
    assert not frozen.running_mean.any()
    assert live.running_mean.any()


def test_batches_must_hold_whole_groups():
    with pytest.raises(UserError, match="the batch must be a multiple of the BatchNorm group of 2 samples but has 5"):
        make(group=2)(data(5))


def test_gradients_pass_through_groups():
    norm = make(group=2)
    torch.autograd.gradcheck(norm, (data(4)[:, :, :2, :2].contiguous().requires_grad_(),))


def test_pending_sums_are_float64_in_a_float32_network():
    norm = make(dtype=torch.float32)
    norm(data(4, dtype=torch.float32))
    assert norm.pending.dtype == torch.float64


def test_a_network_is_told_its_groups_by_name_of_the_method():
    class Declares(nn.Module):
        def set_norm_batch(self, norm_batch):
            self.told = norm_batch

    net = nn.Sequential(make(), nn.Sequential(Declares(), make()), nn.ReLU())
    set_norm_batch(net, 3)
    assert net[0].norm_batch == net[1][0].told == net[1][1].norm_batch == 3
    commit(nn.ReLU(), alone)  # no norms: no reduction to wait for


def test_one_group_of_sequences_is_batch_norm_whose_groups_are_their_own():
    ours, theirs = GroupedBatchNorm1d(C).double(), nn.BatchNorm1d(C).double()
    x = data(4).flatten(2)
    torch.testing.assert_close(ours(x), theirs(x))
    commit(ours, alone)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    set_norm_batch(ours, 2)
    torch.testing.assert_close(ours(x), torch.cat([ours(x[:2]), ours(x[2:])]))
    with pytest.raises(
        UserError, match=r"BatchNorm over sequences takes inputs \(N, C, L\), one for each sample, but got"
    ):
        ours(x.flatten(0, 1).new_zeros(8, C))


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(C), nn.BatchNorm2d(C), nn.SyncBatchNorm(C), nn.InstanceNorm2d(C, track_running_stats=True)]
)
def test_a_norm_that_knows_no_groups_is_refused_by_name(norm):
    net = nn.Sequential(make(), nn.Sequential(nn.ReLU(), norm))
    with pytest.raises(
        UserError, match=rf"1\.1 is {type(norm).__name__}, whose statistics depend on micro-batches and"
    ):
        set_norm_batch(net, 2)


def test_bf16_autocast_keeps_its_statistics():
    x = data(4, dtype=torch.float32)
    norm, exact = make(dtype=torch.float32), make(dtype=torch.float32)
    exact(x)
    with torch.autocast("cpu", torch.bfloat16):
        norm(x.bfloat16())
    commit(norm, alone)
    commit(exact, alone)
    torch.testing.assert_close(norm.running_mean, exact.running_mean, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(norm.running_var, exact.running_var, rtol=1e-2, atol=1e-3)
