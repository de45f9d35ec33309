"""Triton kernels of the depthwise convolution; `depthwise.py` starts them. All maps lie pixel by pixel.

A program computes `ROWS` rows of `COLUMNS` columns of `CHANNELS` channels; a column is one x position of one image, so
narrow maps fill a program too. It goes through the kernel column by column: the weights of a column stay in registers,
and each pixel is loaded once for all output rows that it adds to, 7 * (ROWS + 6) loads instead of 49 * ROWS.
"""

# The language of Triton is not that of the type checker.
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportOperatorIssue=false

import triton
import triton.language as tl

#: arguments whose divisibility makes no faster code, only more compilations
_SIZES = ("height", "width", "out_height", "out_width", "columns", "num_row_blocks", "num_tiles")


@triton.jit(do_not_specialize=_SIZES)
def convolve(
    x_ptr, taps_ptr, out_ptr,
    height, width, out_height, out_width, columns, channels,
    K: tl.constexpr, STRIDE: tl.constexpr, M: tl.constexpr, SUM: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """out[b, y, x, c*M + m] = sum over i, j of x[b, y*STRIDE + i - K//2, x*STRIDE + j - K//2, c] * taps[m, i, j, c]."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    out_row = tl.program_id(1) * ROWS
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    image, out_x = column // out_width, column % out_width
    is_column, is_channel = column < columns, channel < channels
    first_y = out_row * STRIDE - K // 2
    outs = _zeros(ROWS * M, COLUMNS, CHANNELS, SUM)
    for j in range(K):
        taps = ()
        for tap in tl.static_range(M * K):
            taps = taps + (tl.load(taps_ptr + (tap * K + j) * channels + channel, mask=is_channel, other=0.0),)
        in_x = out_x * STRIDE + j - K // 2
        where, is_inside = _column(x_ptr, image, first_y, in_x, is_column, height, width, channel, is_channel, channels)
        for row in tl.static_range((ROWS - 1) * STRIDE + K):
            is_row = (first_y + row >= 0) & (first_y + row < height)
            value = tl.load(where + row * width * channels, mask=is_inside & is_row, other=0.0).to(SUM)
            for r in tl.static_range(ROWS):
                if row >= r * STRIDE and row - r * STRIDE < K:
                    for m in tl.static_range(M):
                        added = outs[r * M + m] + value * taps[m * K + row - r * STRIDE][None, :]
                        outs = outs[: r * M + m] + (added,) + outs[r * M + m + 1 :]
    for r in tl.static_range(ROWS):
        pixel = (image * out_height + out_row + r) * out_width + out_x
        mask = is_column & (out_row + r < out_height)
        _store(out_ptr, outs[r * M : r * M + M], pixel, mask, channels, CHANNELS, M)


@triton.jit(do_not_specialize=_SIZES)
def backward_input(
    grad_ptr, taps_ptr, add_ptr, grad_x_ptr,
    height, width, out_height, out_width, columns, channels,
    K: tl.constexpr, STRIDE: tl.constexpr, M: tl.constexpr, SUM: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """grad_x[b, y, x, c] = sum of grad[b, y', x', c*M + m] * taps[m, i, j, c], where y = y'*STRIDE + i - K//2.

    With a stride, y modulo STRIDE decides which i take part, so the pixels of each remainder are computed by itself.
    """
    for part in tl.static_range(STRIDE * STRIDE):
        backward_input_part(
            grad_ptr, taps_ptr, add_ptr, grad_x_ptr, height, width, out_height, out_width, columns, channels,
            part // STRIDE, part % STRIDE, K, STRIDE, M, SUM, ROWS, COLUMNS, CHANNELS, ADD,
        )  # fmt: skip


@triton.jit
def backward_input_part(
    grad_ptr, taps_ptr, add_ptr, grad_x_ptr,
    height, width, out_height, out_width, columns, channels,
    PART_Y: tl.constexpr, PART_X: tl.constexpr,
    K: tl.constexpr, STRIDE: tl.constexpr, M: tl.constexpr, SUM: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """The pixels with y % STRIDE = PART_Y and x % STRIDE = PART_X."""
    FIRST_I: tl.constexpr = (PART_Y + K // 2) % STRIDE  # the taps that take part, every STRIDE-th
    FIRST_J: tl.constexpr = (PART_X + K // 2) % STRIDE
    NUM_I: tl.constexpr = (K - FIRST_I + STRIDE - 1) // STRIDE
    NUM_J: tl.constexpr = (K - FIRST_J + STRIDE - 1) // STRIDE
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    x_row = tl.program_id(1) * ROWS  # in units of STRIDE, as are the columns
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    image, column_x = column // out_width, column % out_width
    is_column, is_channel = column < columns, channel < channels
    first_y = x_row + (PART_Y + K // 2) // STRIDE - (NUM_I - 1)  # the first row of grad
    sums = _zeros(ROWS, COLUMNS, CHANNELS, SUM)
    for j in range(NUM_J):
        taps = ()
        for tap in tl.static_range(M * NUM_I):
            number = (tap // NUM_I * K + FIRST_I + tap % NUM_I * STRIDE) * K + FIRST_J + j * STRIDE
            taps = taps + (tl.load(taps_ptr + number * channels + channel, mask=is_channel, other=0.0),)
        grad_x = column_x + (PART_X + K // 2) // STRIDE - j
        is_inside = is_column & (grad_x >= 0) & (grad_x < out_width)
        for row in tl.static_range(ROWS + NUM_I - 1):
            pixel = (image * out_height + first_y + row) * out_width + grad_x
            mask = is_inside & (first_y + row >= 0) & (first_y + row < out_height)
            values = _load(grad_ptr, pixel, mask, channels, CHANNELS, M, SUM)
            for r in tl.static_range(ROWS):
                if r <= row and row < r + NUM_I:
                    for m in tl.static_range(M):
                        added = sums[r] + values[m] * taps[m * NUM_I + r + NUM_I - 1 - row][None, :]
                        sums = sums[:r] + (added,) + sums[r + 1 :]
    x = column_x * STRIDE + PART_X
    for r in tl.static_range(ROWS):
        y = (x_row + r) * STRIDE + PART_Y
        where = ((image * height + y) * width + x)[:, None] * channels + channel[None, :]
        mask = (is_column & (x < width) & (y < height))[:, None] & is_channel[None, :]
        value = sums[r]
        if ADD:
            value += tl.load(add_ptr + where, mask=mask, other=0.0).to(SUM)
        tl.store(grad_x_ptr + where, value.to(grad_x_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=_SIZES)
def backward_weight(
    x_ptr, grad_ptr, sums_ptr,
    height, width, out_height, out_width, columns, channels, num_row_blocks, num_tiles,
    K: tl.constexpr, STRIDE: tl.constexpr, M: tl.constexpr, SUM: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """sums[p, m, i, j, c]: x[b, y*STRIDE + i - K//2, ..., c] * grad[b, y, x, c*M + m] in the tiles of program p."""
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    sums = _zeros(M * K * K, COLUMNS, CHANNELS, SUM)
    for tile in range(tl.program_id(0), num_tiles, tl.num_programs(0)):
        column = (tile // num_row_blocks) * COLUMNS + tl.arange(0, COLUMNS)
        out_row = (tile % num_row_blocks) * ROWS
        image, out_x = column // out_width, column % out_width
        is_column = column < columns
        first_y = out_row * STRIDE - K // 2
        grads = ()
        for r in tl.static_range(ROWS):
            pixel = (image * out_height + out_row + r) * out_width + out_x
            mask = is_column & (out_row + r < out_height)
            grads = grads + _load(grad_ptr, pixel, mask, channels, CHANNELS, M, SUM, AXIS=1)
        for j in tl.static_range(K):
            in_x = out_x * STRIDE + j - K // 2
            where, is_inside = _column(
                x_ptr, image, first_y, in_x, is_column, height, width, channel, is_channel, channels
            )
            for row in tl.static_range((ROWS - 1) * STRIDE + K):
                is_row = (first_y + row >= 0) & (first_y + row < height)
                value = tl.load(where + row * width * channels, mask=is_inside & is_row, other=0.0).to(SUM)
                for r in tl.static_range(ROWS):
                    if row >= r * STRIDE and row - r * STRIDE < K:
                        for m in tl.static_range(M):
                            # the tap i = row - r * STRIDE
                            added = sums[(m * K + row - r * STRIDE) * K + j] + value * grads[r * M + m]
                            sums = (
                                sums[: (m * K + row - r * STRIDE) * K + j]
                                + (added,)
                                + sums[(m * K + row - r * STRIDE) * K + j + 1 :]
                            )
    for tap in tl.static_range(M * K * K):
        where = (tl.program_id(0) * M * K * K + tap) * channels + channel
        tl.store(sums_ptr + where, tl.sum(sums[tap], 0), mask=is_channel)


@triton.jit
def _column(map_ptr, image, first_y, x, is_column, height, width, channel, is_channel, channels):
    """Where the pixels (first_y, x) of images lie, a tile (columns, channels), and which columns and channels exist."""
    first = (image * height + first_y) * width + x
    is_inside = (is_column & (x >= 0) & (x < width))[:, None] & is_channel[None, :]
    return map_ptr + first[:, None] * channels + channel[None, :], is_inside


@triton.jit
def _zeros(COUNT: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
    """COUNT tiles of zeros."""
    zeros = ()
    for _ in tl.static_range(COUNT):
        zeros = zeros + (tl.zeros((COLUMNS, CHANNELS), SUM),)
    return zeros


@triton.jit
def _load(
    map_ptr, pixel, mask, channels,
    CHANNELS: tl.constexpr, M: tl.constexpr, SUM: tl.constexpr, AXIS: tl.constexpr = 2,
):  # fmt: skip
    """M tiles of a map with M values per channel; those of a pixel are loaded together and then taken apart."""
    value = tl.program_id(AXIS) * CHANNELS * M + tl.arange(0, CHANNELS * M)
    where = map_ptr + pixel[:, None] * (channels * M) + value[None, :]
    both = tl.load(where, mask=mask[:, None] & (value < channels * M)[None, :], other=0.0).to(SUM)
    if M == 1:
        return (both,)
    else:
        return tl.split(both.reshape(both.shape[0], CHANNELS, 2))


@triton.jit
def _store(map_ptr, tiles, pixel, mask, channels, CHANNELS: tl.constexpr, M: tl.constexpr):
    """The inverse of `_load`."""
    value = tl.program_id(2) * CHANNELS * M + tl.arange(0, CHANNELS * M)
    where = map_ptr + pixel[:, None] * (channels * M) + value[None, :]
    if M == 1:
        both = tiles[0]
    else:
        both = tl.join(tiles[0], tiles[1]).reshape(tiles[0].shape[0], CHANNELS * 2)
    tl.store(where, both.to(map_ptr.dtype.element_ty), mask=mask[:, None] & (value < channels * M)[None, :])
