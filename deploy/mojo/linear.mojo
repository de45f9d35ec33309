"""Linear layers, each computed in the type of its weights."""

from activations import NONE
from encoding import encode
from buffers import Floats, Buffer, Numbers, parts
from network import Matrix, Network
from products import Epilogue, OfBFloat16, OfFloat32, OfInt8, PANEL, Product, multiply
from std.sys import size_of
from threads import Threads

comptime CACHE = 3 << 17  # bytes of rows that all panels multiply before the next rows, for the second-level cache


struct Workspace(Copyable, Movable):
    """The threads, and memory that one layer after the other uses."""

    var threads: Threads
    var rows: Buffer  # encoded
    var row_scale: Buffer

    def __init__(out self, threads: Threads):
        self.threads = threads
        self.rows = Buffer()
        self.row_scale = Buffer()


struct Linear(Copyable, Movable):
    """y = activation(x · weightᵀ + bias)"""

    var panels: Buffer
    var bias: Buffer  # filled with zeros to whole panels, like `scale`
    var scale: Buffer  # of I8
    var inputs: Int
    var outputs: Int
    var type: DType

    def __init__(out self, network: Network, name: String, outputs: Int, inputs: Int) raises:
        var weight = network.matrix(name + ".weight", outputs, inputs)
        self.inputs = inputs
        self.outputs = outputs
        self.type = weight.type
        self.bias = network.floats(name + ".bias", String(outputs), extra=PANEL[OfFloat32])
        self.scale = Buffer()
        if self.type == DType.float32:
            self.panels = packed[OfFloat32](weight)
        elif self.type == DType.bfloat16:
            self.panels = packed[OfBFloat16](weight)
        else:
            self.panels = packed[OfInt8](weight)
            self.scale = network.floats(name + ".scale", String(outputs), extra=PANEL[OfInt8])

    def run(self, x: Floats, rows: Int, y: Floats, mut work: Workspace, activation: Int = NONE, adds: Bool = False):
        """Of x (rows, inputs) into y (rows, outputs), or added to it."""
        if self.type == DType.float32:
            self.run_as[OfFloat32](x, rows, y, work, activation, adds)
        elif self.type == DType.bfloat16:
            self.run_as[OfBFloat16](x, rows, y, work, activation, adds)
        else:
            self.run_as[OfInt8](x, rows, y, work, activation, adds)

    def run_as[P: Product](self, x: Floats, rows: Int, y: Floats, mut work: Workspace, activation: Int, adds: Bool):
        var units = parts(self.inputs, P.unit)
        var stride = units * P.steps
        work.row_scale.reserve(4 * rows)
        var row_scale = work.row_scale.floats()
        var left = Numbers[P.left](unsafe_from_address=Int(x))
        comptime if P.weight != DType.float32:
            work.rows.reserve(4 * rows * stride)
            left = work.rows.at[P.left]()
            encode[P.weight](x, rows, self.inputs, Int(left), 4 * stride, row_scale, work.threads)
        var bias = self.bias.floats()
        var scale = self.scale.floats()
        var panels = self.panels.at[P.weight]()
        var outputs = self.outputs
        var count = parts(outputs, PANEL[P])
        var at_once = parts(rows, parts(4 * rows * stride, CACHE))

        def part(number: Int, _thread: Int) {imm}:
            var first = number // count * at_once
            var column = number % count * PANEL[P]
            var to = Epilogue(
                bias.unsafe_offset(column),
                scale.unsafe_offset(column),
                row_scale.unsafe_offset(first),
                activation,
                adds,
            )
            multiply[P](
                left.unsafe_offset(first * stride), stride, min(at_once, rows - first),
                panels.unsafe_offset(column * units * P.unit), units, min(PANEL[P], outputs - column),
                y.unsafe_offset(first * outputs + column), outputs, to,
            )

        work.threads.run(count * parts(rows, at_once), part)


def packed[P: Product](weight: Matrix) -> Buffer:
    """Panels of the columns of weightᵀ, filled with zeros; see products.mojo."""
    comptime size = P.unit
    comptime panel = PANEL[P]
    var units = parts(weight.columns, size)
    var result = Buffer(size_of[Scalar[P.weight]]() * parts(weight.rows, panel) * panel * units * size)
    var to = result.at[P.weight]()
    var numbers = weight.at[P.weight]()
    for j in range(weight.rows):
        var first = (j // panel * units * panel + j % panel) * size
        var row = numbers.unsafe_offset(j * weight.columns)
        for k in range(weight.columns):
            to[unsafe_offset=first + k // size * panel * size + k % size] = row[unsafe_offset=k]
    return result^
