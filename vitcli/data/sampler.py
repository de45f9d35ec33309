"""The order of the training images: pure functions of (seed, epoch, step, micro-step, rank), without any state.

The order of an epoch is cut into global batches, a global batch into blocks, and each (micro-step, rank) gets a block:

    epoch order   | global batch 0                  | global batch 1                  | ...
    blocks        | m0r0  m0r1 | m1r0  m1r1         | m0r0  m0r1 | m1r0  m1r1         |       2 ranks, 2 micro-steps

So the images of a step depend on the size of the global batch, not on how it is spread over ranks and micro-steps.

With repeated augmentation (Hoffer et al. 2019, arXiv 1901.09335) each sample of the order is drawn `repeats` times in a
row. The number of draws in an epoch stays the same, so an epoch sees only a part of the samples, as in DeiT. Within a
global batch all first draws come before all second ones, so with enough ranks a sample's draws are on different ranks.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vitcli.data.balanced import BalancedOrder
from vitcli.data.permutation import permuted
from vitcli.data.streams import raw_numbers
from vitcli.errors import DataError

#: a longer order is not sorted, which needs 40 bytes a sample in every worker, but computed place by place
LONGEST_SORTED = 2**20


def samples_at(places: np.ndarray, seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """(n,) int64: the samples at `places` of the shuffled order of `epoch`."""
    if num_samples > LONGEST_SORTED:
        return permuted(places, num_samples, "order", seed, epoch)
    return _sorted_order(seed, epoch, num_samples)[places]


@lru_cache(maxsize=2)
def _sorted_order(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """(num_samples,) int64. By raw 64-bit numbers, since `Generator.permutation` may change with the NumPy version."""
    return np.argsort(raw_numbers(num_samples, "order", seed, epoch), kind="stable")


def eval_indices(num_samples: int, rank: int, world_size: int) -> range:
    """The samples that `rank` evaluates: each sample on exactly one rank, with no padding."""
    return range(rank, num_samples, world_size)


@dataclass(frozen=True)
class BatchPlan:
    """How `num_samples` are distributed over steps, micro-steps and ranks.

    Args:
        batch_size: samples per rank and micro-step.
        drop_remainder: drop the last, incomplete global batch of an epoch. Otherwise it is spread as evenly as possible
            (block sizes differ by one at most). If it has fewer samples than there are blocks, it is filled from the
            beginning of the order, so that no rank is without a sample.
        repeats: how often each sample of an epoch is drawn.
        balanced: the order in which samples are drawn; None: `epoch_order`.

    Raises:
        DataError: an epoch would have no step.
    """

    num_samples: int
    batch_size: int
    world_size: int = 1
    accumulation: int = 1
    seed: int = 0
    shuffle: bool = True
    drop_remainder: bool = True
    repeats: int = 1
    balanced: BalancedOrder | None = None

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise DataError("the training split has no images")
        if self.steps_per_epoch < 1:
            blocks = f"batch_size {self.batch_size} x {self.world_size} processes x {self.accumulation} micro-steps"
            largest = self.num_samples // self.num_blocks
            cure = f"set batch_size to {largest} or less" if largest else "use fewer processes"
            if self.accumulation > 1:
                cure = f"set --global_batch_size to {self.num_samples} or less, or gradient_accumulation_steps to 1"
            raise DataError(
                f"the training split has {self.num_samples} images, "
                f"fewer than one global batch of {self.global_batch} ({blocks})",
                help=f"{cure}, or keep incomplete batches: drop_remainder: False",
            )

    @property
    def num_blocks(self) -> int:
        return self.world_size * self.accumulation

    @property
    def global_batch(self) -> int:
        """Samples in a step, over all ranks and micro-steps."""
        return self.batch_size * self.num_blocks

    @property
    def smallest_batch(self) -> int:
        """Samples that a rank gets in a micro-step of the last step of an epoch, at least."""
        return self.num_samples_of(self.steps_per_epoch - 1) // self.num_blocks

    @property
    def steps_per_epoch(self) -> int:
        full, rest = divmod(self.num_samples, self.global_batch)
        return full + (rest > 0 and not self.drop_remainder)

    def block(self, micro: int, rank: int) -> int:
        """The block of the global batch that `rank` computes in `micro`; the same for 2 ranks x 1 and 1 rank x 2."""
        return micro * self.world_size + rank

    def epoch_and_step(self, step: int) -> tuple[int, int]:
        """Global step -> (epoch, step within it), all counted from 0."""
        return divmod(step, self.steps_per_epoch)

    def num_samples_of(self, step_in_epoch: int) -> int:
        """Samples of one step, over all blocks; fewer than a global batch only in an incomplete last step."""
        left = self.num_samples - step_in_epoch * self.global_batch
        return max(min(self.global_batch, left), self.num_blocks)

    def indices(self, epoch: int, step_in_epoch: int, micro: int, rank: int) -> np.ndarray:
        """(n,) int64 sample ids of one block; n is batch_size except in an incomplete last step."""
        return self.draws(epoch, step_in_epoch, micro, rank)[0]

    def draws(self, epoch: int, step_in_epoch: int, micro: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """The sample ids, and (n,) int64 a number for each: no two draws of a sample in an epoch have the same.

        It is 0 for the first draw, and counts the others, unless the order is balanced.
        """
        assert 0 <= step_in_epoch < self.steps_per_epoch
        assert 0 <= self.block(micro, rank) < self.num_blocks
        start = step_in_epoch * self.global_batch
        places = np.arange(start, min(start + self.global_batch, self.num_samples))  # among the draws of the epoch
        if len(places) < self.num_blocks:
            places = np.concatenate([places, np.arange(self.num_blocks - len(places)) % self.num_samples])
        places = places[np.argsort(places % self.repeats, kind="stable")]
        block = self.block(micro, rank)
        places = places[block * len(places) // self.num_blocks : (block + 1) * len(places) // self.num_blocks]
        places, repeats = places // self.repeats, places % self.repeats
        if self.balanced:
            samples, numbers = self.balanced.draws(epoch, places)
            return samples, numbers * self.repeats + repeats
        return samples_at(places, self.seed, epoch, self.num_samples) if self.shuffle else places, repeats
