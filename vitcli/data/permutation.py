"""Random permutations of any length, one place at a time: nothing is stored, and no place depends on the others.

A Feistel network over the smallest even number of bits that holds the length is a permutation of 2^bits numbers.
Walking along its cycles until a number below the length comes up makes it one of the length (Black and Rogaway 2002,
"Ciphers with arbitrary finite domains"). The round function is the finalizer of SplitMix64.
"""

import numpy as np

from vitcli.data.streams import raw_numbers

_ROUNDS = 6


def permuted(places: np.ndarray, length: int, purpose: str, *position: int) -> np.ndarray:
    """What stands at `places` (n,) of the permutation of 0 .. length - 1 that `(purpose, *position)` names; int64."""
    half_bits = max(1, -(-(length - 1).bit_length() // 2))
    keys = raw_numbers(_ROUNDS, purpose, *position)
    found = _feistel(places.astype(np.uint64), half_bits, keys)
    while (outside := np.flatnonzero(found >= length)).size:
        found[outside] = _feistel(found[outside], half_bits, keys)
    return found.astype(np.int64)


def _feistel(numbers: np.ndarray, half_bits: int, keys: np.ndarray) -> np.ndarray:
    """A permutation of the numbers of 2 x half_bits bits, uint64."""
    shift, unused = np.uint64(half_bits), np.uint64(64 - half_bits)
    left, right = numbers >> shift, numbers & np.uint64((1 << half_bits) - 1)
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) >> unused)
    return (left << shift) | right


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """uint64 -> uint64, every bit of the result depends on every bit (Steele, Lea and Flood 2014, SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
