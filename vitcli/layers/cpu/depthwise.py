"""Depthwise convolution that trains fast on a CPU.

oneDNN has fast kernels for the weight gradient of depthwise convolutions up to 3 columns wide with one output per
input channel. Everything else runs in reference code that is ten times slower (torch 2.15, measured with AVX-512). The
same values are computed here with the fast kernels:

- several outputs per channel: one depthwise convolution for each, then interleaved;
- a wide kernel: the weight gradient of its columns in groups of at most 3, with the stride undone by zeros;
- a map of few pixels: a small dense matrix per channel.
"""

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DENSE_ENTRIES = 1024  # pixels in * pixels out, up to which a matrix is faster than a convolution
FAST_COLUMNS = 3  # widest kernel whose weight gradient oneDNN computes fast


def is_depthwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether `CpuDepthwiseConv2d` computes what `module` does: depthwise, odd square kernel, same-size padding."""
    if type(module) is not nn.Conv2d or not module.groups == module.in_channels > 1:
        return False
    side, stride = module.kernel_size[0], module.stride[0]
    same_size = module.kernel_size == (side, side) and side % 2 == 1 and module.padding in ("same", (side // 2,) * 2)
    plain = module.dilation == (1, 1) and module.padding_mode == "zeros"
    return same_size and plain and module.stride == (stride, stride)


class CpuDepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with the same values and names, for a layer of which `is_depthwise` holds."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or torch.compiler.is_compiling():
            return super().forward(input)
        return depthwise_conv2d(input, self.weight, self.bias, stride=self.stride[0])


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1) -> Tensor:
    """Each channel convolved with its own kernels: (B, C, H, W) -> (B, M*C, H/stride, W/stride).

    Args:
        x: (B, C, H, W).
        weight: (M*C, 1, k, k), k odd; the first M kernels belong to the first channel.
        bias: (M*C,).
    """
    channels, kernel_size = x.shape[1], weight.shape[-1]
    dense = x.shape[-2] * x.shape[-1] * -(-x.shape[-2] // stride) * -(-x.shape[-1] // stride) <= DENSE_ENTRIES
    narrow = min(x.shape[-2:]) <= kernel_size // 2 and not dense
    if x.device.type != "cpu" or narrow:
        return F.conv2d(x, weight, bias, stride, kernel_size // 2, groups=channels)
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight = x.to(dtype), weight.to(dtype)
    if dense:
        out = _dense(x, weight, stride)
    else:
        kernels = weight.unflatten(0, (channels, -1)).unbind(1)  # M of (C, 1, k, k)
        if kernel_size > FAST_COLUMNS:
            outs = [_WideKernel.apply(x, kernel.contiguous(), stride) for kernel in kernels]
        else:
            outs = [F.conv2d(x, k.contiguous(), None, stride, kernel_size // 2, groups=channels) for k in kernels]
        out = outs[0] if len(outs) == 1 else torch.stack(outs, 2).flatten(1, 2)
    return out if bias is None else out + bias.to(out.dtype).view(-1, 1, 1)


def _dense(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """With a matrix (P_in, M*P_out) per channel, for P pixels: its rows are the responses to single pixels."""
    batch, channels, height, width = x.shape
    pixels = torch.eye(height * width, dtype=weight.dtype).view(-1, 1, height, width)
    responses = F.conv2d(pixels, weight, None, stride, weight.shape[-1] // 2)  # (P_in, M*C, H_out, W_out)
    matrix = responses.view(len(pixels), channels, -1).transpose(0, 1)  # (C, P_in, M*P_out)
    out = x.flatten(2).transpose(0, 1) @ matrix  # (C, B, M*P_out)
    return out.transpose(0, 1).reshape(batch, -1, *responses.shape[-2:])


class _WideKernel(torch.autograd.Function):
    """A depthwise convolution with one output per channel, whose weight gradient is assembled from columns."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int) -> Tensor:
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=x.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        x, weight, ctx.stride = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        padding = (weight.shape[-1] // 2,) * 2
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _backward(grad, x, weight, ctx.stride, padding, (True, False, False))[0]
        if ctx.needs_input_grad[1]:
            if ctx.stride > 1:  # the same convolution with stride 1, from which the strided one takes pixels
                strided, grad = grad, torch.zeros_like(x)
                grad[..., :: ctx.stride, :: ctx.stride] = strided
            grad_weight = _grad_of_wide_kernel(grad, x, weight)
        return grad_x, grad_weight, None


def _grad_of_wide_kernel(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """(C, 1, k, k) from groups of columns; each group is treated as a kernel without the other columns."""
    kernel_size, width = weight.shape[-1], x.shape[-1]
    gradients = []
    for start in range(0, kernel_size, FAST_COLUMNS):
        columns = weight[..., start : start + FAST_COLUMNS].contiguous()
        left = kernel_size // 2 - start
        shifted = F.pad(x, (left, columns.shape[-1] - 1 - left))  # the pixels these columns see
        assert shifted.shape[-1] == width + columns.shape[-1] - 1
        gradients.append(_backward(grad, shifted, columns, 1, (kernel_size // 2, 0), (False, True, False))[1])
    return torch.cat(gradients, -1)


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, ...], wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the depthwise convolution for those of (x, weight, bias) that are wanted."""
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, (stride, stride), padding, (1, 1), False, (0, 0), x.shape[1], wanted
    )
