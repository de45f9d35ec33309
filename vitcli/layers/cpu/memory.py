"""Let the C library keep the memory that tensors free.

By default glibc returns each large block to the kernel and gets new, zeroed pages for the next tensor. A training step
on the CPU frees and allocates the same sizes again and again; the zeroed pages cost 10 to 35 % of its time.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
GIB = 2**30


def keep_freed_memory() -> bool:
    """Ask glibc to reuse freed blocks of any size until the process ends; False where that is not possible.

    The process keeps the largest amount of memory it has used. Call it before the first training step on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, for example musl
        return False
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, GIB), mallopt(M_TOP_PAD, GIB // 16)])
