"""Memory that a process and its workers share, however they were started, and that no other file system limits."""

import mmap
import os
import tempfile
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np


class SharedBytes:
    """`size` bytes, zero at first. A copy that is sent to a worker process is the same memory.

    POSIX shared memory (/dev/shm) has 64 MiB in a container unless more is asked for, so this is an anonymous file.
    """

    def __init__(self, size: int) -> None:
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("vitcli", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                self._descriptor = os.dup(file.fileno())
        os.ftruncate(self._descriptor, size)
        self._map(size)

    def _map(self, size: int) -> None:
        self.array = np.frombuffer(mmap.mmap(self._descriptor, size), dtype=np.uint8) if size else np.empty(0, np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        return {"file": DupFd(self._descriptor), "size": self.array.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._descriptor = state["file"].detach()
        self._map(state["size"])

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
