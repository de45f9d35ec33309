"""Permutations that are computed place by place are permutations, and as random as a shuffled deck."""

import numpy as np
import pytest

from vitcli.data.permutation import permuted


@pytest.mark.parametrize("length", [*range(1, 70), 255, 256, 257, 1000, 65537])
def test_every_number_comes_once(length):
    order = permuted(np.arange(length), length, "test", 3)
    assert np.array_equal(np.sort(order), np.arange(length))


def test_it_never_changes():
    """A change of these numbers would silently change every run that is resumed."""
    assert permuted(np.arange(8), 8, "order", 42, 0).tolist() == PINNED
    assert permuted(np.array([0, 13_999_999]), 14_000_000, "order", 42, 0).tolist() == PINNED_LONG


PINNED = [0, 1, 5, 7, 3, 2, 4, 6]
PINNED_LONG = [3239711, 5795415]


def test_a_place_does_not_depend_on_the_others():
    order = permuted(np.arange(1000), 1000, "test", 1)
    places = np.array([999, 3, 3, 500])
    assert np.array_equal(permuted(places, 1000, "test", 1), order[places])


def test_each_number_is_as_likely_at_each_place():
    """Chi-square of a 12 x 12 table over 6,000 permutations; 174.8 is the 0.1 % point of 11 x 11 degrees of freedom."""
    counts = np.zeros((12, 12))
    for key in range(6000):
        counts[np.arange(12), permuted(np.arange(12), 12, "test", key)] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 174.8


def test_neighbors_are_as_likely_as_in_a_shuffled_deck():
    """Ascents, fixed points and neighbors that stay neighbors: the means of random permutations of 5,000."""
    orders = [permuted(np.arange(5000), 5000, "test", key) for key in range(200)]
    ascents = np.mean([(np.diff(order) > 0).sum() for order in orders])
    fixed = np.mean([(order == np.arange(5000)).sum() for order in orders])
    together = np.mean([(abs(np.diff(order)) == 1).sum() for order in orders])
    assert abs(ascents - 4999 / 2) < 4 * np.sqrt(5001 / 12 / 200)
    assert abs(fixed - 1) < 4 * np.sqrt(1 / 200)
    assert abs(together - 2) < 4 * np.sqrt(2 / 200)


def test_two_keys_have_nothing_in_common():
    first, second = (permuted(np.arange(20_000), 20_000, "test", key) for key in (1, 2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(20_000)
    assert (first == second).sum() < 8
