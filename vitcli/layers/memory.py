"""Let the C library keep the memory that tensors give back.

By default glibc returns each large block to the kernel and gets fresh, zeroed pages for the next tensor. A training
step on the CPU frees and allocates the same sizes again and again; the zeroed pages cost it 10 to 35 % of its time.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
GIB = 2**30


def keep_freed_memory() -> bool:
    """Ask glibc to reuse freed blocks of any size, for the life of the process; False where that is not possible.

    The process keeps the largest amount of memory it ever used. Call it before the first training step on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, musl for one
        return False
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, GIB), mallopt(M_TOP_PAD, GIB // 16)])
