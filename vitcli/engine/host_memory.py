"""Copies of tensors in the host's memory, which later steps do not change; the memory is used again for the next.

Tensors that are sharded over the ranks are put together one by one, so every rank must call `copied`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitcli.parallel.shards import whole

Tensors = dict[str, Tensor]


class HostMemory:
    """One buffer for each tensor of a checkpoint, made at its first copy: as much memory as a checkpoint has bytes.

    Buffers for a GPU's tensors are pinned: the GPU fills them by itself, all of them before the host waits once.
    """

    def __init__(self) -> None:
        self._buffers: Tensors = {}

    def copied(self, stem: str, tensors: Mapping[str, Tensor]) -> Tensors:
        """The tensors of a file, row by row. Until `wait` returns, those of a GPU may not be complete."""
        return {name: self._copy(f"{stem}/{name}", whole(value.detach())) for name, value in tensors.items()}

    def _copy(self, name: str, value: Tensor) -> Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or (buffer.shape, buffer.dtype) != (value.shape, value.dtype):
            buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.device.type == "cuda")
            self._buffers[name] = buffer
        return buffer.copy_(value, non_blocking=value.device.type == "cuda")

    def wait(self) -> None:
        """Until the copies are complete."""
        if any(buffer.is_pinned() for buffer in self._buffers.values()):
            torch.cuda.synchronize()


class NoCopies:
    """In place of `HostMemory` where the tensors do not change before they are written: only a GPU's are copied."""

    def copied(self, stem: str, tensors: Mapping[str, Tensor]) -> Tensors:
        found = {name: whole(value.detach()).to("cpu").contiguous() for name, value in tensors.items()}
        owner = {value.untyped_storage().data_ptr(): name for name, value in found.items()}
        # safetensors writes no two tensors of the same memory
        return {n: v if owner[v.untyped_storage().data_ptr()] == n else v.clone() for n, v in found.items()}

    def wait(self) -> None: ...


class NoMemory:
    """In place of both on a rank that writes nothing: it gives its part of the tensors that are sharded."""

    def copied(self, stem: str, tensors: Mapping[str, Tensor]) -> Tensors:
        for value in tensors.values():
            whole(value.detach())
        return {}

    def wait(self) -> None: ...


def memory_of(is_main: bool, *, keeps_copies: bool) -> HostMemory | NoCopies | NoMemory:
    """Where this rank has the tensors of a checkpoint while it is written."""
    if not is_main:
        return NoMemory()
    return HostMemory() if keeps_copies else NoCopies()
