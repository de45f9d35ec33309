"""Starts Triton kernels, or records what would be started, so that bytes and compiled code are known without a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor
from triton import knobs

#: values that a map may have; its convolution may have twice as many, and 32 bits number them
MOST_VALUES = 2**30
#: data types of maps, each with the type that sums are kept in; float64 is for tests
SUMS = {torch.float32: tl.float32, torch.bfloat16: tl.float32, torch.float16: tl.float32, torch.float64: tl.float64}
_SUMS_IN_TORCH = {tl.float32: torch.float32, tl.float64: torch.float64}


class Launch(NamedTuple):
    kernel: Any  #: a function under @triton.jit
    grid: tuple[int, ...]
    args: tuple[Any, ...]  #: tensors, tuples of them, numbers
    constants: dict[str, Any]


_recorded: list[Launch] | None = None


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
    """Start `kernel` on the current device."""
    if _recorded is None:
        kernel[grid](*args, **constants)
    else:
        _recorded.append(Launch(kernel, grid, args, constants))


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Inside, kernels take tensors of any device, also `meta`, and are recorded instead of started."""
    global _recorded
    before, _recorded = _recorded, []
    try:
        yield _recorded
    finally:
        _recorded = before


def can_run(x: Tensor) -> bool:
    """Whether the kernels of this folder take the map x: on a GPU, or anywhere under TRITON_INTERPRET=1."""
    here = x.is_cuda or _recorded is not None or knobs.runtime.interpret
    return here and x.dtype in SUMS and 0 < x.numel() < MOST_VALUES and not torch.compiler.is_compiling()


def sum_type(x: Tensor) -> torch.dtype:
    """The data type of sums over values of x."""
    return _SUMS_IN_TORCH[SUMS[x.dtype]]


def by_pixel(x: Tensor) -> Tensor:
    """The map (B, C, H, W) with the channels of a pixel next to each other in memory (channels_last)."""
    return x.contiguous(memory_format=torch.channels_last)


def empty_map(like: Tensor, *shape: int) -> Tensor:
    """A map of `shape` (B, C, H, W), pixel by pixel."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def channel_block(channels: int) -> int:
    """How many neighboring channels a program takes: a power of two that wastes few lanes."""
    return 32 if channels % 32 == 0 or channels > 256 else 16
