"""Depthwise convolution on GPUs, in Triton: the map, its gradient and the gradient of the kernel.

cuDNN computes the weight gradient of a depthwise convolution group by group, and in channels_last with layout changes
around each. Here every kernel reads the maps pixel by pixel (channels_last), for three reasons: neighboring lanes read
neighboring channels, whatever the width of the map; the 1 x 1 convolutions around it are matrix products without a
layout change; BatchNorm sums whole rows of channels.

Sums are kept in float32. No atomic additions: a weight gradient is bitwise the same in each run.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from vitcli.layers.gpu.depthwise_kernels import backward_input, backward_weight, convolve
from vitcli.layers.gpu.launcher import SUMS, by_pixel, channel_block, empty_map, launch, sum_type

ROWS = 4  #: output rows of a program; more save loads and cost registers
THREADS = 128
#: programs of a weight gradient: enough to fill a GPU, few enough that their sums are small next to the maps
WEIGHT_PROGRAMS = 1024


def depthwise_convs(x: Tensor, weights: Sequence[Tensor], *, stride: int = 1) -> tuple[Tensor, ...]:
    """x convolved with each of `weights`, and x itself, whose gradients are added where they are computed.

    Args:
        x: (B, C, H, W), float32, bfloat16, float16 or float64.
        weights: each (M*C, 1, k, k), k odd; the first M kernels belong to the first channel. Padding is k // 2.

    Returns:
        One (B, M*C, H/stride, W/stride) for each of `weights`, in the data type of x; then x. All pixel by pixel.
    """
    return _DepthwiseConvs.apply(x, stride, *weights)


class _DepthwiseConvs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int, *weights: Tensor) -> tuple[Tensor, ...]:
        x = by_pixel(x)
        ctx.stride = stride
        ctx.save_for_backward(x, *weights)
        ctx.set_materialize_grads(False)
        return *(_convolved(x, weight, stride) for weight in weights), x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, *weights = ctx.saved_tensors
        *grads_of_maps, grad_x = grads
        grads_of_weights: list[Tensor | None] = []
        for needed, grad, weight in zip(ctx.needs_input_grad[2:], grads_of_maps, weights, strict=True):
            grad = None if grad is None else by_pixel(grad.to(x.dtype))
            if grad is not None and ctx.needs_input_grad[0]:
                grad_x = _grad_of_input(grad, weight, x, ctx.stride, grad_x)
            grads_of_weights.append(
                _grad_of_weight(grad, x, weight, ctx.stride) if needed and grad is not None else None
            )
        return grad_x if ctx.needs_input_grad[0] else None, None, *grads_of_weights


def _convolved(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    batch, channels, height, width = x.shape
    out_height, out_width = -(-height // stride), -(-width // stride)
    out = empty_map(x, batch, len(weight), out_height, out_width)
    tile = _tile(channels, values_per_thread=4 // _multiple(weight, x))
    sizes = height, width, out_height, out_width, batch * out_width, channels
    grid = _grid(batch * out_width, out_height, channels, tile)
    launch(convolve, grid, x, _taps(weight, x), out, *sizes, **_kind(weight, x, stride), **tile)
    return out


def _grad_of_input(grad: Tensor, weight: Tensor, x: Tensor, stride: int, add: Tensor | None) -> Tensor:
    """The gradient for x, plus `add` where given."""
    batch, channels, height, width = x.shape
    out_height, out_width = grad.shape[-2:]
    grad_x = empty_map(x, *x.shape)
    add = None if add is None else by_pixel(add.to(x.dtype))
    tile = _tile(channels, values_per_thread=4 // _multiple(weight, x))
    sizes = height, width, out_height, out_width, batch * out_width, channels
    launch(
        backward_input,
        _grid(batch * out_width, out_height, channels, tile),
        *(grad, _taps(weight, x), grad_x if add is None else add, grad_x, *sizes),
        **_kind(weight, x, stride),
        **tile,
        ADD=add is not None,
    )
    return grad_x


def _grad_of_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    batch, channels, height, width = x.shape
    out_height, out_width = grad.shape[-2:]
    multiple, num_taps = _multiple(weight, x), weight.shape[-1] ** 2
    # the sums of all weights, for each value of a tile, stay in registers
    tile = _tile(channels, values_per_thread=1 if multiple * num_taps > 49 else 2)
    num_row_blocks, num_channel_blocks = triton.cdiv(out_height, ROWS), triton.cdiv(channels, tile["CHANNELS"])
    num_tiles = triton.cdiv(batch * out_width, tile["COLUMNS"]) * num_row_blocks
    num_programs = min(num_tiles, max(WEIGHT_PROGRAMS // num_channel_blocks, 1))
    sums = torch.empty(num_programs, multiple, num_taps, channels, dtype=sum_type(x), device=x.device)
    sizes = height, width, out_height, out_width, batch * out_width, channels, num_row_blocks, num_tiles
    kind = _kind(weight, x, stride)
    launch(backward_weight, (num_programs, num_channel_blocks), x, grad, sums, *sizes, **kind, **tile)
    return sums.sum(0).permute(2, 0, 1).reshape(weight.shape).to(weight.dtype)


def _multiple(weight: Tensor, x: Tensor) -> int:
    """Outputs per channel: 1 or 2."""
    return len(weight) // x.shape[1]


def _taps(weight: Tensor, x: Tensor) -> Tensor:
    """(M, k*k, C): the weights of neighboring channels next to each other; not rounded to the type of x."""
    taps = weight.detach().to(sum_type(x)).reshape(x.shape[1], _multiple(weight, x), -1)
    return taps.permute(1, 2, 0).contiguous()


def _kind(weight: Tensor, x: Tensor, stride: int) -> dict[str, Any]:
    """What a kernel is compiled for."""
    return {"K": weight.shape[-1], "STRIDE": stride, "M": _multiple(weight, x), "SUM": SUMS[x.dtype]}


def _tile(channels: int, *, values_per_thread: int) -> dict[str, int]:
    block = channel_block(channels)
    columns = THREADS * values_per_thread // block
    return {"ROWS": ROWS, "COLUMNS": columns, "CHANNELS": block, "num_warps": THREADS // 32}


def _grid(columns: int, rows: int, channels: int, tile: dict[str, int]) -> tuple[int, int, int]:
    return triton.cdiv(columns, tile["COLUMNS"]), triton.cdiv(rows, ROWS), triton.cdiv(channels, tile["CHANNELS"])
