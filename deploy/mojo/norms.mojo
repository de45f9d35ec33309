"""LayerNorm of rows, and sums of matrices."""

from buffers import Buffer, Floats, Vector, WIDTH, sum_of_lanes
from network import Network
from std.math import sqrt
from threads import Threads

comptime AT_ONCE = 16  # rows


struct Norm(Copyable, Movable):
    """LayerNorm with weights; nothing if the network does not have it."""

    var exists: Bool
    var width: Int
    var eps: Float32
    var weight: Buffer
    var bias: Buffer

    def __init__(out self, network: Network, name: String, width: Int, eps: Float32) raises:
        self.exists = network.values.flag(name)
        self.width = width
        self.eps = eps
        self.weight = Buffer()
        self.bias = Buffer()
        if self.exists:
            self.weight = network.floats(name + ".weight", String(width))
            self.bias = network.floats(name + ".bias", String(width))

    def run(self, x: Floats, rows: Int):
        if not self.exists:
            return
        var weight = self.weight.floats()
        var bias = self.bias.floats()
        for i in range(rows):
            var row = x.unsafe_offset(i * self.width)
            normalize_row(row, self.width, self.eps, row)
            for j in range(self.width):
                row[unsafe_offset=j] = row[unsafe_offset=j].fma(weight[unsafe_offset=j], bias[unsafe_offset=j])


def layer_norm(x: Floats, rows: Int, width: Int, eps: Float32, y: Floats, threads: Threads):
    """(x - mean) / sqrt(variance + eps) of each row; y may be x."""

    def part(number: Int, _thread: Int) {imm}:
        for row in range(number * AT_ONCE, min(number * AT_ONCE + AT_ONCE, rows)):
            normalize_row(x.unsafe_offset(row * width), width, eps, y.unsafe_offset(row * width))

    threads.run((rows + AT_ONCE - 1) // AT_ONCE, part)


def normalize_row(x: Floats, width: Int, eps: Float32, y: Floats):
    var mean = sum_of[squared=False](x, width, 0) / Float32(width)
    var factor = 1 / sqrt(sum_of[squared=True](x, width, mean) / Float32(width) + eps)
    var i = 0
    while i + WIDTH <= width:
        y.unsafe_store(i, (x.unsafe_load[width=WIDTH](i) - mean) * factor)
        i += WIDTH
    for j in range(i, width):
        y[unsafe_offset=j] = (x[unsafe_offset=j] - mean) * factor


def sum_of[squared: Bool](x: Floats, count: Int, mean: Float32) -> Float32:
    """Of x - mean, or of its squares."""
    var sums = Vector(0)
    var i = 0
    while i + WIDTH <= count:
        var difference = x.unsafe_load[width=WIDTH](i) - mean
        sums = difference.fma(difference, sums) if squared else sums + difference
        i += WIDTH
    var rest = Float32(0)
    for j in range(i, count):
        var difference = x[unsafe_offset=j] - mean
        rest = difference.fma(difference, rest) if squared else rest + difference
    return sum_of_lanes(sums) + rest


def add(x: Floats, y: Floats, count: Int):
    for i in range(count):
        x[unsafe_offset=i] += y[unsafe_offset=i]
