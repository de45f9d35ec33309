"""The balanced order: equal numbers of all classes, all images of a class before one comes again, and no state."""

import pickle

import numpy as np
import pytest

from vitcli.data import balanced
from vitcli.data.balanced import BalancedOrder, balanced_order
from vitcli.data.sampler import BatchPlan
from vitcli.data.source import ArrayImages
from vitcli.errors import UsageError

#: class 1 has no images
TARGETS = np.array([0] * 50 + [2] * 9 + [3] * 1 + [4] * 17)
PRESENT = [0, 2, 3, 4]
RARE = [50, 9, 1, 17]


def images(targets: np.ndarray | None) -> ArrayImages:
    names = None if targets is None else list("abcde")
    return ArrayImages(np.zeros((len(TARGETS), 1, 1), dtype=np.uint8), targets, names, "images")


def order(num_draws: int = 77, seed: int = 3) -> BalancedOrder:
    return balanced_order(images(TARGETS), num_draws, seed)


def epoch_of(epoch: int, num_draws: int = 77, seed: int = 3) -> np.ndarray:
    return order(num_draws, seed).draws(epoch, np.arange(num_draws))[0]


@pytest.mark.parametrize("num_draws", [77, 80, 3, 1001])
def test_classes_are_drawn_equally_often_up_to_one(num_draws: int):
    """In every beginning of an epoch, and over all epochs."""
    total = np.zeros(5, dtype=int)
    for epoch in range(12):
        labels = TARGETS[epoch_of(epoch, num_draws)]
        for length in range(1, num_draws + 1, 7):
            counts = np.bincount(labels[:length], minlength=5)[PRESENT]
            assert counts.max() - counts.min() <= 1
        total += np.bincount(labels, minlength=5)
        assert np.ptp(total[PRESENT]) <= 1
    assert total[1] == 0


def test_every_round_has_each_class_once_in_another_order():
    labels = TARGETS[epoch_of(5)][:76].reshape(-1, 4)
    assert (np.sort(labels, axis=1) == PRESENT).all()
    assert len({tuple(row) for row in labels.tolist()}) > 10


def test_all_images_of_a_class_come_before_one_comes_again_across_epochs():
    drawn = np.concatenate([np.sort(epoch_of(epoch)) for epoch in range(30)])
    counts = np.bincount(drawn, minlength=len(TARGETS))
    for label in PRESENT:
        assert np.ptp(counts[label == TARGETS]) <= 1
    rare = [[i for i in epoch_of(epoch, num_draws=36) if TARGETS[i] == 2] for epoch in range(4)]  # 9 of each class
    assert all(sorted(some) == list(range(50, 59)) for some in rare)
    assert len({tuple(some) for some in rare}) == 4, "shuffled anew"


def test_draws_of_a_sample_have_different_numbers():
    """They are what its augmentations are a function of."""
    samples, numbers = order(1001).draws(2, np.arange(1001))
    assert len({*zip(samples.tolist(), numbers.tolist(), strict=True)}) == 1001
    plan = BatchPlan(77, 77, repeats=3, balanced=order(num_draws=26))
    samples, numbers = plan.draws(0, 0, 0, 0)
    assert len({*zip(samples.tolist(), numbers.tolist(), strict=True)}) == 77
    cats = {*samples[TARGETS[samples] == 0].tolist()}
    copies = {cat: sorted(numbers[samples == cat].tolist()) for cat in cats}
    assert sum(some == [0, 1, 2] for some in copies.values()) >= len(copies) - 1, "the last sample may be cut off"


def test_is_a_pure_function_that_other_processes_share():
    first = epoch_of(7)
    balanced._epoch.cache_clear()
    copy = pickle.loads(pickle.dumps(order()))
    assert np.array_equal(copy.draws(7, np.arange(77))[0], first)
    assert not np.array_equal(epoch_of(7, seed=4), first)
    assert not np.array_equal(epoch_of(8), first)


@pytest.mark.parametrize(("world_size", "accumulation"), [(2, 1), (1, 2), (2, 2)])
def test_ranks_and_micro_steps_share_the_order_of_one(world_size: int, accumulation: int):
    alone = BatchPlan(77, 16, seed=3, balanced=order())
    plan = BatchPlan(77, 16 // (world_size * accumulation), world_size, accumulation, seed=3, balanced=order())
    for step in range(plan.steps_per_epoch):
        blocks = [plan.indices(1, step, micro, rank) for micro in range(accumulation) for rank in range(world_size)]
        assert np.array_equal(np.concatenate(blocks), alone.indices(1, step, 0, 0))


def test_numbers_of_a_stream_can_be_made_from_any_place():
    whole = balanced._numbers(3, 1, 0, 50)
    for start in range(9):
        assert np.array_equal(balanced._numbers(3, 1, start, 20), whole[start : start + 20])


def test_images_without_classes_are_refused():
    with pytest.raises(UsageError, match="the images have no labels"):
        balanced_order(images(None), 77, 0)
