"""Rows of numbers, rounded to what a layer of BF16 or I8 multiplies."""

from buffers import Floats, Numbers, Vector, WIDTH
from std.memory import bitcast
from threads import Threads

comptime AT_ONCE = 16  # rows


def encode[
    type: DType
](x: Floats, rows: Int, count: Int, address: Int, stride: Int, row_scale: Floats, threads: Threads):
    """Of x (rows, count) into rows of `stride` bytes from `address` on: float32 of BF16, int16 of I8; then zeros."""

    def part(number: Int, _thread: Int) {imm}:
        for row in range(number * AT_ONCE, min(number * AT_ONCE + AT_ONCE, rows)):
            var given = x.unsafe_offset(row * count)
            comptime if type == DType.bfloat16:
                round_to_bf16(given, count, Floats(unsafe_from_address=address + row * stride), stride // 4)
            else:
                var to = Numbers[DType.int16](unsafe_from_address=address + row * stride)
                row_scale[unsafe_offset=row] = round_to_whole(given, count, to, stride // 2)

    threads.run((rows + AT_ONCE - 1) // AT_ONCE, part)


def round_to_bf16(x: Floats, count: Int, y: Floats, filled: Int):
    """To nearest, ties to even; x is finite."""
    var i = 0
    while i + WIDTH <= count:
        y.unsafe_store(i, in_bf16[WIDTH](x.unsafe_load[width=WIDTH](i)))
        i += WIDTH
    for j in range(i, count):
        y[unsafe_offset=j] = in_bf16[1](x[unsafe_offset=j])
    for j in range(count, filled):
        y[unsafe_offset=j] = 0


@always_inline
def in_bf16[width: Int](x: SIMD[DType.float32, width]) -> SIMD[DType.float32, width]:
    var bits = bitcast[DType.uint32, width](x)
    return bitcast[DType.float32, width]((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000)


def round_to_whole(x: Floats, count: Int, y: Numbers[DType.int16], filled: Int) -> Float32:
    """Each x as a multiple of the largest magnitude / 127, which is returned; rounded, ties to even."""
    var step = largest_magnitude(x, count) / 127
    var divisor = step if step > 0 else Float32(1)
    var i = 0
    while i + WIDTH <= count:
        y.unsafe_store(i, round(x.unsafe_load[width=WIDTH](i) / divisor).cast[DType.int16]())
        i += WIDTH
    for j in range(i, count):
        y[unsafe_offset=j] = round(x[unsafe_offset=j] / divisor).cast[DType.int16]()
    for j in range(count, filled):
        y[unsafe_offset=j] = 0
    return step


def largest_magnitude(x: Floats, count: Int) -> Float32:
    var found = Vector(0)
    var i = 0
    while i + WIDTH <= count:
        found = max(found, abs(x.unsafe_load[width=WIDTH](i)))
        i += WIDTH
    var result = found.reduce_max()
    for j in range(i, count):
        result = max(result, abs(x[unsafe_offset=j]))
    return result
