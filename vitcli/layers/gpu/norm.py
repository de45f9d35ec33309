"""Batch normalization for training on GPUs, in Triton: sums of norms of several maps in few passes over memory.

What FastViT computes after its convolutions is a sum of norms: of the outputs of two convolutions, or of one and their
input, sometimes of the same map under several norms. Norms of one map share its statistics, because
mean(w x) = w mean(x) and var(w x) = w^2 var(x), so all that is needed of a map is read once for the statistics and once
for the sum; the activation and a residual are computed with it. The backward pass reads each map twice as well.

Statistics are those of parts of the rows, as mean and sum of squared deviations, and are put together in a fixed order
(Chan, Golub, LeVeque 1979): exact for maps with a large mean, and bitwise the same in each run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vitcli.layers.gpu.launcher import SUMS, by_pixel, can_run, channel_block, empty_map, launch, sum_type
from vitcli.layers.gpu.norm_kernels import (
    backward_maps,
    gradients_of_channels,
    moments,
    slope_and_shift,
    sum_up,
    sums,
)

ROW_BLOCK = 64  #: pixels that a program reads at once
MOST_PARTS = 512  #: parts of the rows, for each block of channels; more would make putting them together slow


class GpuBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the same values and names; `native`: with PyTorch's kernels."""

    native = False

    def forward(self, input: Tensor) -> Tensor:
        if self.native or not is_fast(input, [self]):
            return super().forward(input)
        return sum_of_norms([input], [[Term(self)]])


class Term(NamedTuple):
    """sign * norm(weight * map); a weight (C,) of None is 1."""

    norm: nn.BatchNorm2d
    sign: int = 1
    weight: Tensor | None = None


def is_fast(x: Tensor, norms: Sequence[nn.Module]) -> bool:
    """Whether `sum_of_norms` computes these norms of x, or of maps like it: plain, in training, alike in eps."""
    first = norms[0]
    several = x.numel() > x.shape[1]  # PyTorch refuses a single value per channel
    alike = all((norm.eps, norm.momentum) == (first.eps, first.momentum) for norm in norms if _is_plain(norm))
    return can_run(x) and several and alike and all(_is_plain(norm) for norm in norms)


def _is_plain(norm: nn.Module) -> bool:
    """A BatchNorm in training, with parameters and running statistics, that is neither synchronized nor held fixed."""
    if not isinstance(norm, nn.BatchNorm2d) or type(norm) not in (nn.BatchNorm2d, GpuBatchNorm2d):
        return False
    return norm.training and norm.affine and norm.momentum is not None and norm.num_batches_tracked is not None


def sum_of_norms(
    maps: Sequence[Tensor],
    terms: Sequence[Sequence[Term]],
    *,
    gain: Tensor | None = None,
    residual: bool = False,
    gelu: bool = False,
) -> Tensor:
    """gelu(maps[0] + gain * sum of all terms), with updates of the running statistics; only if `is_fast`.

    Args:
        maps: of the same shape (B, C, H, W) and data type.
        terms: for each map, at least one; only the first may have a weight.
        gain: (C,); None is 1.
        residual: add maps[0].
        gelu: the exact GELU.

    Returns:
        (B, C, H, W), pixel by pixel, in the data type of the maps.
    """
    plan = Plan(tuple(tuple(of_map) for of_map in terms), residual, gelu)
    weights = [of_map[0].weight for of_map in plan.terms]
    affine = [parameter for of_map in plan.terms for term in of_map for parameter in (term.norm.weight, term.norm.bias)]
    return _SumOfNorms.apply(plan, gain, *maps, *weights, *affine)


@dataclass(frozen=True)
class Plan:
    """What is summed, without the tensors that have gradients."""

    terms: tuple[tuple[Term, ...], ...]
    residual: bool
    gelu: bool


class _SumOfNorms(torch.autograd.Function):
    """Per channel, for the map x of N values, g the gradient before the activation, and terms t of x:

    out     = sum of s (x - mean) + shift,    s = sum of gain sign_t gamma_t w_t r_t,   r_t = 1 / sqrt(w_t^2 var + eps)
    dx      = s (g - sum(g) / N) + s' (x - mean),    s' = -sum of gain sign_t gamma_t w_t^3 r_t^3 * along / N
    along   = sum of g (x - mean)
    dgamma  = gain sign_t w_t r_t along,   dbeta = gain sign_t sum(g),   dw_t = gain sign_t gamma_t eps r_t^3 along
    dgain   = sum of sign_t (gamma_t w_t r_t along + beta_t sum(g))
    """

    @staticmethod
    def forward(ctx: Any, plan: Plan, gain: Tensor | None, *tensors: Tensor | None) -> Tensor:
        count = len(plan.terms)
        maps = tuple(by_pixel(x) for x in tensors[:count] if x is not None)
        weights = tensors[count : 2 * count]
        facts = tuple(
            _statistics(x, of_map, weight, gain) for x, of_map, weight in zip(maps, plan.terms, weights, strict=True)
        )
        out = empty_map(maps[0], *maps[0].shape)
        rows, channels, grid, tile = _elementwise(out)
        launch(sum_up, grid, maps, facts, out, rows, channels, **_options(plan, maps), **tile)
        ctx.plan = plan
        ctx.save_for_backward(gain, *maps, *weights, *facts)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        plan: Plan = ctx.plan
        count = len(plan.terms)
        gain, *saved = ctx.saved_tensors
        maps, weights, facts = tuple(saved[:count]), saved[count : 2 * count], tuple(saved[2 * count :])
        grad = by_pixel(grad.to(maps[0].dtype))
        rows, channels, parts, part_rows, grid, tile = _summing(grad)
        options = _options(plan, maps)
        totals = torch.empty(1 + count, parts, channels, dtype=sum_type(grad), device=grad.device)
        launch(sums, grid, grad, maps, facts, totals, rows, channels, part_rows, **options, **tile)
        grads = tuple(
            _parameter_gradients(totals, number, of_map, weight, gain, fact, rows, parts)
            for number, (of_map, weight, fact) in enumerate(zip(plan.terms, weights, facts, strict=True))
        )
        grads_of_maps = tuple(empty_map(x, *x.shape) for x in maps)
        rows, channels, grid, tile = _elementwise(grad)
        launch(backward_maps, grid, grad, maps, facts, grads, grads_of_maps, rows, channels, **options, **tile)
        return None, *_in_order(plan, gain, weights, grads_of_maps, grads)


def _in_order(
    plan: Plan,
    gain: Tensor | None,
    weights: Sequence[Tensor | None],
    of_maps: Sequence[Tensor],
    grads: Sequence[Tensor],
) -> list[Tensor | None]:
    """The gradients in the order of the inputs: gain, maps, weights, then weight and bias of each norm.

    The rows of `grads` are those that `_parameter_gradients` writes.
    """
    of_gain = None if gain is None else sum(rows[2] for rows in grads).to(gain.dtype)  # pyright: ignore
    of_weights = [
        None if weight is None else rows[3].to(weight.dtype) for weight, rows in zip(weights, grads, strict=True)
    ]
    affine = [
        rows[4 + 2 * number + kind]
        for of_map, rows in zip(plan.terms, grads, strict=True)
        for number in range(len(of_map))
        for kind in range(2)
    ]
    return [of_gain, *of_maps, *of_weights, *affine]


def _statistics(x: Tensor, terms: Sequence[Term], weight: Tensor | None, gain: Tensor | None) -> Tensor:
    """(4, C): mean, biased variance, slope and shift of the map; the running statistics of its norms are updated."""
    rows, channels, parts, part_rows, grid, tile = _summing(x)
    parts_moments = torch.empty(2, parts, channels, dtype=sum_type(x), device=x.device)
    launch(moments, grid, x, parts_moments, rows, channels, part_rows, **tile, SUM=SUMS[x.dtype])
    facts = torch.empty(4, channels, dtype=sum_type(x), device=x.device)
    norms = [term.norm for term in terms]
    launch(
        slope_and_shift,
        (triton.cdiv(channels, 16),),
        *(parts_moments, facts, facts if weight is None else weight, facts if gain is None else gain),
        *_parameters(norms),
        *(tuple(norm.running_mean for norm in norms), tuple(norm.running_var for norm in norms)),
        *(tuple(norm.num_batches_tracked for norm in norms), rows, channels, parts, part_rows),
        *(norms[0].eps, norms[0].momentum),
        **_of_terms(terms, weight, gain, x),
    )
    return facts


def _parameter_gradients(
    totals: Tensor,
    number: int,
    terms: Sequence[Term],
    weight: Tensor | None,
    gain: Tensor | None,
    facts: Tensor,
    rows: int,
    parts: int,
) -> Tensor:
    """(4 + 2 T, C): sum(g) / N, s', the gradients of gain and weight, then those of gamma and beta of each term."""
    channels = facts.shape[1]
    out = torch.empty(4 + 2 * len(terms), channels, dtype=facts.dtype, device=facts.device)
    launch(
        gradients_of_channels,
        (triton.cdiv(channels, 16),),
        *(totals, totals[1 + number], facts, out, facts if weight is None else weight, facts if gain is None else gain),
        *_parameters([term.norm for term in terms]),
        *(rows, channels, parts, terms[0].norm.eps),
        **_of_terms(terms, weight, gain, facts),
    )
    return out


def _parameters(norms: Sequence[nn.BatchNorm2d]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    return tuple(norm.weight for norm in norms), tuple(norm.bias for norm in norms)


def _of_terms(terms: Sequence[Term], weight: Tensor | None, gain: Tensor | None, x: Tensor) -> dict[str, Any]:
    """What the kernels of the channels are compiled for. SIGNS: bit t is set where term t is subtracted."""
    signs = sum(1 << number for number, term in enumerate(terms) if term.sign < 0)
    given = {"WEIGHTED": weight is not None, "GAIN": gain is not None}
    return {"TERMS": len(terms), "SIGNS": signs, **given, "SUM": SUMS[x.dtype], "PARTS": 32, "CHANNELS": 16}


def _options(plan: Plan, maps: Sequence[Tensor]) -> dict[str, Any]:
    return {"MAPS": len(maps), "RESIDUAL": plan.residual, "GELU": plan.gelu, "SUM": SUMS[maps[0].dtype]}


def _elementwise(x: Tensor) -> tuple[int, int, tuple[int, int], dict[str, int]]:
    """Rows (pixels) and channels of a map, the grid of programs, and their tile."""
    rows, channels = x.numel() // x.shape[1], x.shape[1]
    tile = {"ROWS": ROW_BLOCK, "CHANNELS": channel_block(channels)}
    return rows, channels, (triton.cdiv(rows, ROW_BLOCK), triton.cdiv(channels, tile["CHANNELS"])), tile


def _summing(x: Tensor) -> tuple[int, int, int, int, tuple[int, int], dict[str, int]]:
    """The same where a program goes through a part of the rows: also the number of parts, and of rows of each."""
    rows, channels, (blocks, channel_blocks), tile = _elementwise(x)
    part_rows = triton.cdiv(blocks, min(blocks, MOST_PARTS)) * ROW_BLOCK
    parts = triton.cdiv(rows, part_rows)
    return rows, channels, parts, part_rows, (parts, channel_blocks), tile
