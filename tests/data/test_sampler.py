"""Order of samples: a pure function, the same for any spread over ranks and micro-steps."""

import numpy as np
import pytest
from timm.data.distributed_sampler import RepeatAugSampler

from vitcli.data.permutation import permuted
from vitcli.data.sampler import LONGEST_SORTED, BatchPlan, eval_indices, samples_at
from vitcli.data.streams import raw_numbers, stream, stream_seed
from vitcli.errors import DataError


def epoch_order(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    return samples_at(np.arange(num_samples), seed, epoch, num_samples)


def blocks(plan: BatchPlan, epoch: int, step: int) -> list[np.ndarray]:
    return [
        plan.indices(epoch, step, micro, rank) for micro in range(plan.accumulation) for rank in range(plan.world_size)
    ]


def test_streams_are_pinned_for_ever():
    """A change of these numbers would silently change every run that is resumed."""
    assert stream_seed("order", 42, 0) == 2_479_546_286_226_128_195
    assert raw_numbers(2, "order", 42, 0).tolist() == [5_585_457_492_430_135_251, 14_771_451_713_383_095_891]
    assert epoch_order(42, 0, 8).tolist() == [4, 0, 2, 3, 6, 1, 5, 7]


def test_streams_differ_by_purpose_and_position():
    names = [("a", 1, 2), ("a", 12), ("a", 2, 1), ("b", 1, 2), ("a", 1, 2, 0)]
    assert len({stream(*name).random() for name in names}) == len(names)


def test_epoch_order_is_a_permutation_that_changes_with_seed_and_epoch():
    orders = [epoch_order(seed, epoch, 1000) for seed in (0, 1) for epoch in (0, 1)]
    assert all(np.array_equal(np.sort(order), np.arange(1000)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 4
    assert np.array_equal(BatchPlan(10, 10, shuffle=False).indices(3, 0, 0, 0), np.arange(10))


def test_a_long_order_is_computed_place_by_place():
    length = LONGEST_SORTED + 5
    order = epoch_order(1, 2, length)
    assert np.array_equal(np.sort(order), np.arange(length))
    assert np.array_equal(order[:1000], permuted(np.arange(1000), length, "order", 1, 2))
    places = np.array([5, length - 1, 0])
    assert np.array_equal(samples_at(places, 1, 2, length), order[places])
    plan = BatchPlan(length, 256, world_size=2, seed=1, repeats=2)
    assert np.array_equal(plan.indices(2, 0, 0, 0), order[:256])
    assert np.array_equal(plan.draws(2, 0, 0, 1)[1], np.ones(256))


def test_epoch_order_is_uniform():
    """Chi-square over where sample 0 lands: 10 cells, 2,000 epochs; 27.9 is the 0.1 % point of 9 degrees of freedom."""
    places = [int(np.flatnonzero(epoch_order(7, epoch, 10) == 0)[0]) for epoch in range(2000)]
    counts = np.bincount(places, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (1, 4), (2, 2), (4, 1), (2, 1), (1, 2)])
def test_global_batch_does_not_depend_on_its_spread(world_size, accumulation):
    batch_size = 16 // (world_size * accumulation)
    plan = BatchPlan(100, batch_size, world_size, accumulation, seed=5)
    reference = BatchPlan(100, 16, seed=5)
    for step in range(plan.steps_per_epoch):
        joined = np.concatenate(blocks(plan, 2, step))
        assert np.array_equal(joined, reference.indices(2, step, 0, 0))


def test_block_is_the_same_for_two_ranks_and_for_two_micro_steps():
    ranks, micro_steps = BatchPlan(100, 8, world_size=2, seed=5), BatchPlan(100, 8, accumulation=2, seed=5)
    assert np.array_equal(ranks.indices(0, 1, 0, 1), micro_steps.indices(0, 1, 1, 0))
    assert ranks.block(0, 1) == micro_steps.block(1, 0) == 1


def test_drop_remainder_leaves_out_only_the_end():
    plan = BatchPlan(103, 10, seed=1)
    seen = np.concatenate([plan.indices(0, step, 0, 0) for step in range(plan.steps_per_epoch)])
    assert plan.steps_per_epoch == 10
    assert np.array_equal(seen, epoch_order(1, 0, 103)[:100])


@pytest.mark.parametrize("num_samples", [97, 98, 100, 101, 103, 107, 3, 1])
def test_without_drop_remainder_each_sample_is_seen_and_no_block_is_empty(num_samples):
    plan = BatchPlan(num_samples, 4, world_size=2, accumulation=2, seed=1, drop_remainder=False)
    dealt = [block for step in range(plan.steps_per_epoch) for block in blocks(plan, 0, step)]
    sizes = [len(block) for block in dealt[-4:]]
    assert set(np.concatenate(dealt).tolist()) == set(range(num_samples))
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    rest = num_samples % plan.global_batch
    repeated = max(0, plan.num_blocks - rest) if rest else 0
    assert sum(map(len, dealt)) == num_samples + repeated


def test_too_small_a_data_set_says_which_batch_size_fits():
    with pytest.raises(DataError, match="batch_size to 25 or less"):
        BatchPlan(50, 64, world_size=2)
    assert BatchPlan(50, 25, world_size=2).steps_per_epoch == 1
    with pytest.raises(DataError, match="global_batch_size to 50 or less"):
        BatchPlan(50, 64, world_size=2, accumulation=2)
    with pytest.raises(DataError, match="fewer processes"):
        BatchPlan(3, 64, world_size=4)
    with pytest.raises(DataError, match="no images"):
        BatchPlan(0, 1)


def test_repeats_are_those_of_deit():
    """timm's sampler draws the same samples in each global batch, and an epoch has as many draws as without."""
    plan = BatchPlan(100, 8, world_size=2, shuffle=False, repeats=3)
    theirs = list(RepeatAugSampler(range(100), num_replicas=1, rank=0, shuffle=False, num_repeats=3, selected_round=0))
    assert plan.steps_per_epoch == BatchPlan(100, 8, world_size=2).steps_per_epoch == 6
    for step in range(6):
        drawn = [plan.draws(0, step, 0, rank) for rank in range(2)]
        samples, repeats = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        assert sorted(samples) == theirs[16 * step : 16 * (step + 1)]
        assert len({*zip(samples.tolist(), repeats.tolist(), strict=True)}) == 16, "no draw comes twice"
        assert np.array_equal(repeats, np.sort(repeats)), "first draws, then second ones, so that ranks share them"


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 4), (2, 2), (4, 1), (3, 1)])
def test_repeats_do_not_depend_on_the_spread(world_size, accumulation):
    plan = BatchPlan(100, 24 // (world_size * accumulation), world_size, accumulation, seed=5, repeats=3)
    reference = BatchPlan(100, 24, seed=5, repeats=3)
    for step in range(plan.steps_per_epoch):
        draws = [plan.draws(1, step, micro, rank) for micro in range(accumulation) for rank in range(world_size)]
        for ours, whole in zip(zip(*draws, strict=True), reference.draws(1, step, 0, 0), strict=True):
            assert np.array_equal(np.concatenate(ours), whole)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("num_samples", [0, 1, 7, 50])
def test_evaluation_sees_each_image_once(num_samples, world_size):
    seen = [index for rank in range(world_size) for index in eval_indices(num_samples, rank, world_size)]
    assert sorted(seen) == list(range(num_samples))
