"""The numbers of workers among which the samples of a step can be dealt, and their micro-batches."""

import pytest

from trainer.config import OptimConfig, UserError


@pytest.mark.parametrize(
    ("optim", "given", "sizes"),
    [
        ({"global_batch": 8}, (1, 4, None), (1, 2, 4)),
        ({"global_batch": 8}, (2, 2, None), (2,)),
        ({"global_batch": 8}, (4, 100, None), (4, 8)),
        ({"global_batch": 8}, (9, 12, None), (8,)),  # a worker needs a sample
        ({"global_batch": 12}, (2, 6, None), (2, 3, 4, 6)),
        ({"global_batch": 12, "norm_batch": 2}, (1, 6, 4), (1, 3, 4, 6)),  # of two workers each has 6, no multiple of 4
    ],
)
def test_numbers_that_cannot_deal_a_step_are_left_out(optim, given, sizes):
    assert OptimConfig(**optim).group_sizes(*given) == sizes
    assert all(OptimConfig(**optim).shares(size, given[2]) for size in sizes)


def test_the_lower_number_must_deal_a_step():
    with pytest.raises(UserError, match=r"workers must divide optim.global_batch \(8\) but got 3"):
        OptimConfig(global_batch=8).group_sizes(3, 4, None)


@pytest.mark.parametrize(("workers", "found"), [(1, 4), (2, 2), (3, 4), (6, 2)])
def test_a_micro_batch_that_was_found_for_another_number_of_workers_fits(workers, found):
    optim = OptimConfig(global_batch=12, norm_batch=2)
    assert optim.fitting_micro_batch(workers, 4) == found
    assert optim.shares(workers, found)[1] == found
    assert optim.fitting_micro_batch(workers, None) is None
    assert OptimConfig(global_batch=12).fitting_micro_batch(workers, 1) == 12 // workers
