"""Batch normalization that trains fast on a CPU, alone and where several norms see the same map.

PyTorch spends 90 % of the forward pass of a float32 BatchNorm on the CPU on mean and variance, in a loop that is not
vectorized (torch 2.15). Two measures, which give the same values up to rounding:

- the statistics are computed by vectorized sums, in two passes, so that a large mean costs no precision;
- norms of the same map x, or of x times a number per channel, share one computation of them, because
  mean(w x) = w mean(x) and var(w x) = w^2 var(x), and their weighted sum is one affine map of x.

The gradient has a closed form; it cannot be differentiated again.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vitcli.layers.sync_norm import track_statistics

FEW_PIXELS = 16  # maps up to this size are not faster


class CpuBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the same values and names."""

    def forward(self, input: Tensor) -> Tensor:
        return normalize(input, self) if is_fast(input, [self]) else super().forward(input)


class Term(NamedTuple):
    """gain * norm(weight * x), with vectors (C,); a weight of None is 1."""

    norm: nn.BatchNorm2d
    gain: Tensor
    weight: Tensor | None = None


def is_fast(x: Tensor, norms: Sequence[nn.Module | None]) -> bool:
    """Whether `normalize` and `sum_of_norms` are valid for the modules and the map x (B, C, H, W), and faster."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.shape[-2] * x.shape[-1] > FEW_PIXELS
        and not torch.compiler.is_compiling()
        and all(type(norm) is CpuBatchNorm2d and norm.training and norm.momentum is not None for norm in norms)
    )


def normalize(x: Tensor, norm: nn.BatchNorm2d, gain: Tensor | None = None) -> Tensor:
    """gain * norm(x) in training mode, including the update of the running statistics; only if `is_fast`."""
    mean, var = channel_statistics(x)
    track_statistics(norm, mean, unbiased(var, x))
    weight, bias = (norm.weight, norm.bias) if gain is None else (gain * norm.weight, gain * norm.bias)
    return _Norm.apply(x, weight, bias, mean, var, norm.eps)


def sum_of_norms(x: Tensor, terms: Sequence[Term]) -> Tensor:
    """The sum of `terms` for a map (B, C, H, W) in training mode, with updates of statistics; only if `is_fast`."""
    assert len({term.norm.eps for term in terms}) == 1
    mean, var = channel_statistics(x)
    one = torch.ones_like(mean)
    weights = torch.stack([one if term.weight is None else term.weight for term in terms])  # (K, C)
    gains = torch.stack([term.gain * term.norm.weight for term in terms])  # (K, C)
    shift = torch.stack([term.gain * term.norm.bias for term in terms]).sum(0)  # (C,)
    for term, weight in zip(terms, weights.detach(), strict=True):
        track_statistics(term.norm, weight * mean, weight**2 * unbiased(var, x))
    return _SumOfNorms.apply(x, gains, weights, shift, mean, var, terms[0].norm.eps)


@torch.no_grad()
def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of each channel of (B, C, H, W)."""
    count = x.numel() // x.shape[1]
    mean = x.sum((0, 2, 3)) / count
    centered = _affine(x, mean, torch.ones_like(mean))
    return mean, torch.linalg.vector_norm(centered, dim=(2, 3)).square().sum(0) / count


def unbiased(var: Tensor, x: Tensor) -> Tensor:
    count = x.numel() // x.shape[1]
    return var * (count / max(count - 1, 1))


class _Norm(torch.autograd.Function):
    """BatchNorm with given statistics of x; the gradient accounts for their dependence on x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps))
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, mean, inverse_std = ctx.saved_tensors
        return *_backward(grad, x, weight, mean, inverse_std, (True, True, True)), None, None, None


class _SumOfNorms(torch.autograd.Function):
    """sum over k of gain_k w_k r_k (x - mean), plus shift, with r_k = 1 / sqrt(w_k^2 var + eps).

    With s(var) = sum of gain_k w_k r_k, g the gradient and sums over the N values of a channel:
      dx      = s (g - sum(g) / N) + 2 s'(var) sum(g (x - mean)) (x - mean) / N,   s' = -1/2 sum of gain_k w_k^3 r_k^3
      dgain_k = w_k r_k sum(g (x - mean))
      dw_k    = gain_k eps r_k^3 sum(g (x - mean)),   since r_k - w_k^2 var r_k^3 = eps r_k^3
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gains: Tensor, weights: Tensor, shift: Tensor, mean: Tensor, var: Tensor, eps: float
    ) -> Tensor:
        inverse_stds = torch.rsqrt(weights**2 * var + eps)  # (K, C)
        slope = (gains * weights * inverse_stds).sum(0)  # (C,)
        ctx.eps = eps
        ctx.save_for_backward(x, gains, weights, inverse_stds, slope, mean)
        return _affine(x, mean, slope, shift)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, gains, weights, inverse_stds, slope, mean = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        one = torch.ones_like(mean)
        _, along_x, total = _backward(grad, x, one, mean, one, (False, True, True))  # sum(g (x - mean)), sum(g)
        slope_change = -(gains * weights**3 * inverse_stds**3).sum(0)  # 2 s'(var)
        through_statistics = _affine(x, mean, slope_change * along_x / count, -slope * total / count)
        return (
            through_statistics.addcmul_(grad, slope.view(-1, 1, 1)),
            weights * inverse_stds * along_x,
            gains * ctx.eps * inverse_stds**3 * along_x,
            total,
            None,
            None,
            None,
        )


def _affine(x: Tensor, mean: Tensor, slope: Tensor, shift: Tensor | None = None) -> Tensor:
    """slope * (x - mean) + shift per channel; BatchNorm in eval mode computes this fastest."""
    return F.batch_norm(x, mean, torch.ones_like(mean), slope, shift, False, 0.0, 0.0)


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse_std: Tensor, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of BatchNorm in training mode for those of (x, weight, bias) that are wanted."""
    return torch.ops.aten.native_batch_norm_backward(grad, x, weight, None, None, mean, inverse_std, True, 0.0, wanted)
