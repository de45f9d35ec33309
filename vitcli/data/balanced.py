"""The order of the training images in which every class comes equally often, whatever its number of images.

The classes take turns, c0 c1 c2 c0 c1 c2 …, from the first epoch to the last, and each turn of a class takes its next
image. Its images are shuffled again whenever all of them were taken. An epoch is the next `num_draws` turns; then the
classes of each round change places, so that the same ones are not neighbors again (mixup takes neighbors):

    turns     c0 c1 c2 | c0 c1 c2 | c0 c1 c2 | c0 …        3 classes, 4 draws in an epoch
    epoch 0   c1 c0 c2 | c0
    epoch 1              c2 c1 c0 | c1                     the first class of an epoch is the one whose turn it is

So in any part of an epoch that starts at its beginning, and in any number of epochs, the draws of two classes differ by
one at most. All of this is a function of (seed, epoch, place): nothing is counted or stored.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from vitcli.data.source import Source
from vitcli.data.streams import raw_numbers, stream_seed
from vitcli.errors import UsageError

#: 64-bit numbers that Philox makes at a time
_PHILOX_BLOCK = 4


class BalancedOrder:
    """Draws with equal numbers of all classes.

    Args:
        members: the samples of each class, without empty classes.
        num_draws: in an epoch.
    """

    def __init__(self, members: Sequence[np.ndarray], num_draws: int, seed: int) -> None:
        self.members, self.num_draws, self.seed = tuple(members), num_draws, seed

    def draws(self, epoch: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is drawn at `places` in the order of `epoch`, all (n,) int64.

        Returns:
            the sample ids, and a number for each that differs between all draws of a sample in the epoch.
        """
        samples, numbers = _epoch(self, epoch)
        return samples[places], numbers[places]


@lru_cache(maxsize=2)
def _epoch(order: BalancedOrder, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """All draws of an epoch, (num_draws,) each."""
    num_classes, length = len(order.members), order.num_draws
    turns = np.arange(epoch * length, (epoch + 1) * length)
    classes = np.argsort(raw_numbers(num_classes, "classes", order.seed), kind="stable")[turns % num_classes]
    samples, numbers = np.empty(length, dtype=np.int64), np.empty(length, dtype=np.int64)
    by_class = np.argsort(classes, kind="stable")
    ends = np.cumsum(np.bincount(classes, minlength=num_classes))
    for which, where in enumerate(np.split(by_class, ends[:-1])):
        if len(where):
            first = int(turns[where[0]]) // num_classes
            samples[where], numbers[where] = _taken(order, which, first, len(where))
    within_rounds = np.lexsort((raw_numbers(length, "places", order.seed, epoch), np.arange(length) // num_classes))
    return samples[within_rounds], numbers[within_rounds]


def _taken(order: BalancedOrder, which: int, first: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The samples that the class `which` takes in n turns from its turn `first` on; how often it began anew."""
    members = order.members[which]
    size = len(members)
    start, end = first // size, -(-(first + n) // size)  # the shufflings that these turns are part of
    keys = _numbers(order.seed, which, start * size, (end - start) * size).reshape(-1, size)
    shuffled = members[np.argsort(keys, axis=1, kind="stable")].ravel()
    skipped = first - start * size
    return shuffled[skipped : skipped + n], np.arange(skipped, skipped + n) // size


def _numbers(seed: int, which: int, start: int, count: int) -> np.ndarray:
    """(count,) uint64: the numbers of the random stream of a class from `start` on; the earlier ones are not made."""
    blocks, skipped = divmod(start, _PHILOX_BLOCK)
    philox = np.random.Philox(key=stream_seed("class", seed, which), counter=blocks)
    return philox.random_raw(skipped + count)[skipped:]


def balanced_order(source: Source, num_draws: int, seed: int) -> BalancedOrder:
    """The balanced order of labeled images.

    Raises:
        UsageError: the images have no labels, or several each.
    """
    targets = source.targets
    if targets is None or targets.ndim != 1:
        problem = "the images have no labels" if targets is None else "an image may have several labels"
        raise UsageError(f"sampler: balanced needs one class of each image; {problem}", help="use sampler: random")
    by_class = np.argsort(targets, kind="stable")
    members = np.split(by_class, np.cumsum(np.bincount(targets))[:-1])
    return BalancedOrder([some for some in members if len(some)], num_draws, seed)
