"""Triton kernels of the sum of norms; `norm.py` starts them and has the formulas. Maps are (rows, channels)."""

# The language of Triton is not that of the type checker.
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportOperatorIssue=false

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows", "part_rows"])
def moments(
    x_ptr, moments_ptr, rows, channels, part_rows,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """moments[0, p] is the mean and moments[1, p] the sum of squared deviations of the rows of part p.

    Sums are those of the differences to the first row, so that a large mean costs no precision.
    """
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    start = tl.program_id(0) * part_rows
    end = tl.minimum(start + part_rows, rows)
    shift = tl.load(x_ptr + start * channels + channel, mask=is_channel, other=0.0).to(SUM)
    total = tl.zeros((ROWS, CHANNELS), SUM)
    squares = tl.zeros((ROWS, CHANNELS), SUM)
    for first in range(start, end, ROWS):
        row = first + tl.arange(0, ROWS)
        mask = (row < end)[:, None] & is_channel[None, :]
        value = tl.load(x_ptr + row[:, None] * channels + channel[None, :], mask=mask, other=0.0).to(SUM)
        value = tl.where(mask, value - shift[None, :], 0.0)
        total += value
        squares += value * value
    count = (end - start).to(SUM)
    total = tl.sum(total, 0)
    squares = tl.sum(squares, 0) - total * total / count
    where = tl.program_id(0) * channels + channel
    tl.store(moments_ptr + where, shift + total / count, mask=is_channel)
    tl.store(moments_ptr + tl.num_programs(0) * channels + where, tl.maximum(squares, 0.0), mask=is_channel)


@triton.jit(do_not_specialize=["rows", "parts", "part_rows"])
def slope_and_shift(
    moments_ptr, facts_ptr, weight_ptr, gain_ptr, gammas, betas, running_means, running_vars, counts,
    rows, channels, parts, part_rows, eps, momentum,
    TERMS: tl.constexpr, SIGNS: tl.constexpr, WEIGHTED: tl.constexpr, GAIN: tl.constexpr, SUM: tl.constexpr,
    PARTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """facts = mean, variance, slope, shift, from the moments of all parts; running statistics as PyTorch's."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    mean = tl.zeros((CHANNELS,), SUM)
    for first in range(0, parts, PARTS):
        part = first + tl.arange(0, PARTS)
        mask = (part < parts)[:, None] & is_channel[None, :]
        value = tl.load(moments_ptr + part[:, None] * channels + channel[None, :], mask=mask, other=0.0)
        count = tl.minimum(rows - part * part_rows, part_rows).to(SUM)
        mean += tl.sum(value * count[:, None], 0) / rows
    squares = tl.zeros((CHANNELS,), SUM)
    for first in range(0, parts, PARTS):
        part = first + tl.arange(0, PARTS)
        mask = (part < parts)[:, None] & is_channel[None, :]
        where = part[:, None] * channels + channel[None, :]
        off = tl.where(mask, tl.load(moments_ptr + where, mask=mask, other=0.0) - mean[None, :], 0.0)
        count = tl.minimum(rows - part * part_rows, part_rows).to(SUM)
        own = tl.load(moments_ptr + parts * channels + where, mask=mask, other=0.0)
        squares += tl.sum(own + off * off * count[:, None], 0)
    var = squares / rows
    gain = _factor(gain_ptr, channel, is_channel, GAIN, CHANNELS, SUM)
    slope = tl.zeros((CHANNELS,), SUM)
    shift = tl.zeros((CHANNELS,), SUM)
    for t in tl.static_range(TERMS):
        weight = _factor(weight_ptr, channel, is_channel, WEIGHTED and t == 0, CHANNELS, SUM)
        sign = 1.0 - 2.0 * ((SIGNS >> t) & 1)
        inverse_std = 1.0 / tl.sqrt(weight * weight * var + eps)
        gamma = tl.load(gammas[t] + channel, mask=is_channel, other=0.0).to(SUM)
        slope += gain * sign * gamma * weight * inverse_std
        shift += gain * sign * tl.load(betas[t] + channel, mask=is_channel, other=0.0).to(SUM)
        old_mean = tl.load(running_means[t] + channel, mask=is_channel, other=0.0)
        old_var = tl.load(running_vars[t] + channel, mask=is_channel, other=0.0)
        new_mean = (1.0 - momentum) * old_mean + momentum * weight * mean
        new_var = (1.0 - momentum) * old_var + momentum * weight * weight * (squares / (rows - 1))
        tl.store(running_means[t] + channel, new_mean.to(old_mean.dtype), mask=is_channel)
        tl.store(running_vars[t] + channel, new_var.to(old_var.dtype), mask=is_channel)
        if tl.program_id(0) == 0:
            tl.store(counts[t], tl.load(counts[t]) + 1)
    tl.store(facts_ptr + channel, mean, mask=is_channel)
    tl.store(facts_ptr + channels + channel, var, mask=is_channel)
    tl.store(facts_ptr + 2 * channels + channel, slope, mask=is_channel)
    tl.store(facts_ptr + 3 * channels + channel, shift, mask=is_channel)


@triton.jit
def _factor(ptr, channel, is_channel, GIVEN: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
    """A factor of each channel; 1 where there is none."""
    if GIVEN:
        return tl.load(ptr + channel, mask=is_channel, other=0.0).to(SUM)
    else:
        return tl.full((CHANNELS,), 1.0, SUM)


@triton.jit
def _before_activation(
    maps, facts, where, channel, mask, is_channel, channels,
    MAPS: tl.constexpr, RESIDUAL: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The sum of norms of a tile, and x - mean of each map."""
    out = tl.zeros(where.shape, SUM)
    centered = ()
    for k in tl.static_range(MAPS):
        value = tl.load(maps[k] + where, mask=mask, other=0.0).to(SUM)
        if RESIDUAL and k == 0:
            out += value
        mean = tl.load(facts[k] + channel, mask=is_channel, other=0.0)
        slope = tl.load(facts[k] + 2 * channels + channel, mask=is_channel, other=0.0)
        shift = tl.load(facts[k] + 3 * channels + channel, mask=is_channel, other=0.0)
        value = value - mean[None, :]
        out += slope[None, :] * value + shift[None, :]
        centered = centered + (value,)
    return out, centered


@triton.jit(do_not_specialize=["rows"])
def sum_up(
    maps, facts, out_ptr, rows, channels,
    MAPS: tl.constexpr, RESIDUAL: tl.constexpr, GELU: tl.constexpr, SUM: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The forward pass over the maps."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    mask = (row < rows)[:, None] & is_channel[None, :]
    where = row[:, None] * channels + channel[None, :]
    out, _ = _before_activation(maps, facts, where, channel, mask, is_channel, channels, MAPS, RESIDUAL, SUM)
    if GELU:
        out = 0.5 * out * (1.0 + tl.erf(out * 0.7071067811865476))
    tl.store(out_ptr + where, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _before_gelu(grad, x):
    """The gradient before GELU: grad * (cdf(x) + x * density(x)) of the normal distribution."""
    density = 0.3989422804014327 * tl.exp(-0.5 * x * x)
    return grad * (0.5 * (1.0 + tl.erf(x * 0.7071067811865476)) + x * density)


@triton.jit(do_not_specialize=["rows", "part_rows"])
def sums(
    grad_ptr, maps, facts, sums_ptr, rows, channels, part_rows,
    MAPS: tl.constexpr, RESIDUAL: tl.constexpr, GELU: tl.constexpr, SUM: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """sums[0, p] = sum of g over the rows of part p, sums[1 + k, p] = sum of g (x_k - mean_k)."""
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    start = tl.program_id(0) * part_rows
    end = tl.minimum(start + part_rows, rows)
    totals = ()
    for _ in tl.static_range(1 + MAPS):
        totals = totals + (tl.zeros((ROWS, CHANNELS), SUM),)
    for first in range(start, end, ROWS):
        row = first + tl.arange(0, ROWS)
        mask = (row < end)[:, None] & is_channel[None, :]
        where = row[:, None] * channels + channel[None, :]
        grad = tl.load(grad_ptr + where, mask=mask, other=0.0).to(SUM)
        out, centered = _before_activation(maps, facts, where, channel, mask, is_channel, channels, MAPS, RESIDUAL, SUM)
        if GELU:
            grad = _before_gelu(grad, out)
        added = (totals[0] + grad,)
        for k in tl.static_range(MAPS):
            added = added + (totals[1 + k] + grad * centered[k],)
        totals = added
    for k in tl.static_range(1 + MAPS):
        where = (k * tl.num_programs(0) + tl.program_id(0)) * channels + channel
        tl.store(sums_ptr + where, tl.sum(totals[k], 0), mask=is_channel)


@triton.jit(do_not_specialize=["rows", "parts"])
def gradients_of_channels(
    totals_ptr, alongs_ptr, facts_ptr, out_ptr, weight_ptr, gain_ptr, gammas, betas,
    rows, channels, parts, eps,
    TERMS: tl.constexpr, SIGNS: tl.constexpr, WEIGHTED: tl.constexpr, GAIN: tl.constexpr, SUM: tl.constexpr,
    PARTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """What follows from the sums over all parts; the formulas are those of `_SumOfNorms`."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    total = tl.zeros((CHANNELS,), SUM)
    along = tl.zeros((CHANNELS,), SUM)
    for first in range(0, parts, PARTS):
        part = first + tl.arange(0, PARTS)
        mask = (part < parts)[:, None] & is_channel[None, :]
        where = part[:, None] * channels + channel[None, :]
        total += tl.sum(tl.load(totals_ptr + where, mask=mask, other=0.0), 0)
        along += tl.sum(tl.load(alongs_ptr + where, mask=mask, other=0.0), 0)
    var = tl.load(facts_ptr + channels + channel, mask=is_channel, other=0.0)
    gain = _factor(gain_ptr, channel, is_channel, GAIN, CHANNELS, SUM)
    change = tl.zeros((CHANNELS,), SUM)
    of_gain = tl.zeros((CHANNELS,), SUM)
    for t in tl.static_range(TERMS):
        weight = _factor(weight_ptr, channel, is_channel, WEIGHTED and t == 0, CHANNELS, SUM)
        sign = 1.0 - 2.0 * ((SIGNS >> t) & 1)
        inverse_std = 1.0 / tl.sqrt(weight * weight * var + eps)
        cube = inverse_std * inverse_std * inverse_std
        gamma = tl.load(gammas[t] + channel, mask=is_channel, other=0.0).to(SUM)
        beta = tl.load(betas[t] + channel, mask=is_channel, other=0.0).to(SUM)
        change -= gain * sign * gamma * weight * weight * weight * cube
        of_gain += sign * (gamma * weight * inverse_std * along + beta * total)
        tl.store(
            out_ptr + (4 + 2 * t) * channels + channel, gain * sign * weight * inverse_std * along, mask=is_channel
        )
        tl.store(out_ptr + (5 + 2 * t) * channels + channel, gain * sign * total, mask=is_channel)
        if WEIGHTED and t == 0:
            tl.store(out_ptr + 3 * channels + channel, gain * sign * gamma * eps * cube * along, mask=is_channel)
    tl.store(out_ptr + channel, total / rows, mask=is_channel)
    tl.store(out_ptr + channels + channel, change * along / rows, mask=is_channel)
    tl.store(out_ptr + 2 * channels + channel, of_gain, mask=is_channel)


@triton.jit(do_not_specialize=["rows"])
def backward_maps(
    grad_ptr, maps, facts, gradients, grads_of_maps, rows, channels,
    MAPS: tl.constexpr, RESIDUAL: tl.constexpr, GELU: tl.constexpr, SUM: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The gradient of each map."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    mask = (row < rows)[:, None] & is_channel[None, :]
    where = row[:, None] * channels + channel[None, :]
    grad = tl.load(grad_ptr + where, mask=mask, other=0.0).to(SUM)
    out, centered = _before_activation(maps, facts, where, channel, mask, is_channel, channels, MAPS, RESIDUAL, SUM)
    if GELU:
        grad = _before_gelu(grad, out)
    for k in tl.static_range(MAPS):
        slope = tl.load(facts[k] + 2 * channels + channel, mask=is_channel, other=0.0)
        mean_grad = tl.load(gradients[k] + channel, mask=is_channel, other=0.0)
        change = tl.load(gradients[k] + channels + channel, mask=is_channel, other=0.0)
        value = slope[None, :] * (grad - mean_grad[None, :]) + change[None, :] * centered[k]
        if RESIDUAL and k == 0:
            value += grad
        tl.store(grads_of_maps[k] + where, value.to(grads_of_maps[k].dtype.element_ty), mask=mask)
