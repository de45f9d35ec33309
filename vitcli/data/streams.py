"""Random numbers as a function of a position, so that nothing random has to be saved to resume a run.

A *stream* is named by its purpose and a few integers: `("sample", seed, epoch, index)`. Equal names give equal numbers
on any machine, in any process, in any order of asking; different names give independent numbers.
"""

import hashlib
import random

import numpy as np


def stream_seed(purpose: str, *position: int) -> int:
    """A 63-bit seed for the stream `(purpose, *position)`: BLAKE2b of its name, the same in every version of Python.

    `purpose` may hold a file name that is not valid UTF-8.
    """
    name = "/".join([purpose, *(str(int(number)) for number in position)])
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()) >> 1


def stream(purpose: str, *position: int) -> random.Random:
    """Python's generator, set to the beginning of the stream `(purpose, *position)`."""
    return random.Random(stream_seed(purpose, *position))


def raw_numbers(count: int, purpose: str, *position: int) -> np.ndarray:
    """(count,) uint64, uniform over all 64-bit numbers: Philox's raw output, which NumPy promises never to change."""
    return np.random.Philox(key=stream_seed(purpose, *position)).random_raw(count)
