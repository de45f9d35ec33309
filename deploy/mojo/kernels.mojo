"""The inner loops: products of matrices by vectors of 16 numbers, norms, activations and attention."""

from max.algorithm import parallelize
from std.math import erf, exp, sqrt, tanh
from std.memory import bitcast

comptime Floats = MutPointer[Float32, MutUntrackedOrigin]
comptime WIDTH = 16
comptime VECTORS = 3
comptime PANEL = WIDTH * VECTORS
comptime ROWS = 8
comptime LEAST = Float32(-3.0e38)
comptime GELU = 0
comptime GELU_TANH = 1
comptime QUICK_GELU = 2
comptime RELU = 3
comptime SILU = 4
comptime TANH = 5
comptime Vector = SIMD[DType.float32, WIDTH]


def at(numbers: List[Float32]) -> Floats:
    return Floats(unsafe_from_address=Int(numbers.unsafe_ptr()))


struct Linear(Copyable, Movable):
    """y = x · weightᵀ + bias; the weight is kept in panels of 48 columns, filled with zeros.

    type: F32, BF16 or I8. For the last two, x is rounded first, and the rounded numbers are multiplied as float32: sums
    of products of int8 are exact up to 2^24.
    """

    var panels: List[Float32]
    var bias: List[Float32]
    var scale: List[Float32]  # of I8, one per output
    var inputs: Int
    var outputs: Int
    var type: String

    def __init__(out self, weight: List[Float32], bias: Floats, var scale: List[Float32], outputs: Int, inputs: Int, type: String):
        var count = (outputs + PANEL - 1) // PANEL
        self.panels = List[Float32](length=count * inputs * PANEL, fill=0)
        self.bias = List[Float32](length=count * PANEL, fill=0)
        self.scale = scale^
        self.inputs = inputs
        self.outputs = outputs
        self.type = type
        for j in range(outputs):
            self.bias[j] = bias[unsafe_offset=j]
            for k in range(inputs):
                self.panels[(j // PANEL * inputs + k) * PANEL + j % PANEL] = weight[j * inputs + k]

    def run(self, x: Floats, rows: Int, y: Floats):
        """Of x (rows, inputs) into y (rows, outputs)."""
        if self.type == "F32":
            self.multiply(x, rows, y)
            return
        var rounded = List[Float32](length=rows * self.inputs, fill=0)
        if self.type == "BF16":
            for i in range(rows * self.inputs):
                rounded[i] = to_bf16(x[unsafe_offset=i])
            self.multiply(at(rounded), rows, y)
            _ = rounded^
            return
        var steps = List[Float32](length=rows, fill=0)
        for i in range(rows):
            steps[i] = whole_numbers(x.unsafe_offset(i * self.inputs), self.inputs, at(rounded).unsafe_offset(i * self.inputs))
        self.multiply(at(rounded), rows, y)
        _ = rounded^
        for i in range(rows):
            for j in range(self.outputs):
                var sum = y[unsafe_offset=i * self.outputs + j]
                y[unsafe_offset=i * self.outputs + j] = sum * steps[i] * self.scale[j] + self.bias[j]

    def multiply(self, x: Floats, rows: Int, y: Floats):
        """The sums, with the bias unless the type is I8, whose sums are scaled first."""
        var panels = at(self.panels)
        var zeros = List[Float32](length=len(self.bias), fill=0)
        var bias = at(zeros) if self.type == "I8" else at(self.bias)
        var inputs = self.inputs
        var outputs = self.outputs

        def panel(p: Int) {imm}:
            var b = panels.unsafe_offset(p * inputs * PANEL)
            var i = 0
            while i + ROWS <= rows:
                tile[ROWS](x.unsafe_offset(i * inputs), inputs, b, bias, y.unsafe_offset(i * outputs), outputs, p)
                i += ROWS
            while i < rows:
                tile[1](x.unsafe_offset(i * inputs), inputs, b, bias, y.unsafe_offset(i * outputs), outputs, p)
                i += 1

        parallelize(panel, (outputs + PANEL - 1) // PANEL)
        _ = zeros^


def to_bf16(x: Float32) -> Float32:
    """Rounded to bfloat16, to nearest, ties to even; x is finite."""
    var bits = bitcast[DType.uint32, 1](x)
    return bitcast[DType.float32, 1]((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000)


def whole_numbers(x: Floats, count: Int, y: Floats) -> Float32:
    """Each x as a multiple of the largest magnitude / 127, which is returned; rounded, ties to even."""
    var largest = Float32(0)
    for i in range(count):
        largest = max(largest, abs(x[unsafe_offset=i]))
    var step = largest / 127
    for i in range(count):
        y[unsafe_offset=i] = round(x[unsafe_offset=i] / (step if step > 0 else Float32(1)))
    return step


def tile[rows: Int](x: Floats, inputs: Int, b: Floats, bias: Floats, y: Floats, outputs: Int, p: Int):
    """`rows` rows of one panel."""
    var sums = Array[Vector, rows * VECTORS](fill=Vector(0))
    for k in range(inputs):
        var line = b.unsafe_offset(k * PANEL)
        var b0 = line.unsafe_load[width=WIDTH](0)
        var b1 = line.unsafe_load[width=WIDTH](WIDTH)
        var b2 = line.unsafe_load[width=WIDTH](2 * WIDTH)
        comptime for r in range(rows):
            var value = Vector(x[unsafe_offset=r * inputs + k])
            sums[r * VECTORS] = value.fma(b0, sums[r * VECTORS])
            sums[r * VECTORS + 1] = value.fma(b1, sums[r * VECTORS + 1])
            sums[r * VECTORS + 2] = value.fma(b2, sums[r * VECTORS + 2])
    comptime for r in range(rows):
        comptime for part in range(VECTORS):
            var column = p * PANEL + part * WIDTH
            var found = sums[r * VECTORS + part] + bias.unsafe_load[width=WIDTH](column)
            if column + WIDTH <= outputs:
                y.unsafe_store(r * outputs + column, found)
            else:
                for j in range(outputs - column):
                    y[unsafe_offset=r * outputs + column + j] = found[j]


def layer_norm(x: Floats, rows: Int, width: Int, eps: Float32, y: Floats):
    """(x - mean) / sqrt(variance + eps) of each row; y may be x."""
    for i in range(rows):
        var row = x.unsafe_offset(i * width)
        var mean = Float32(0)
        var variance = Float32(0)
        for j in range(width):
            mean += row[unsafe_offset=j]
        mean /= Float32(width)
        for j in range(width):
            var difference = row[unsafe_offset=j] - mean
            variance += difference * difference
        var factor = 1 / sqrt(variance / Float32(width) + eps)
        for j in range(width):
            y[unsafe_offset=i * width + j] = (row[unsafe_offset=j] - mean) * factor


def scale_and_shift(x: Floats, rows: Int, width: Int, weight: Floats, bias: Floats):
    for i in range(rows * width):
        x[unsafe_offset=i] = x[unsafe_offset=i] * weight[unsafe_offset=i % width] + bias[unsafe_offset=i % width]


def require_activation(name: String) raises:
    """Error if it is none of the native format."""
    var nothing = List[Float32]()
    activate("" if name == "tanh" else name, at(nothing), 0)


def activate(name: String, x: Floats, count: Int) raises:
    """Apply an activation of the native format, or tanh, to each number."""
    if name == "gelu":
        each[GELU](x, count)
    elif name == "gelu_tanh":
        each[GELU_TANH](x, count)
    elif name == "quick_gelu":
        each[QUICK_GELU](x, count)
    elif name == "relu":
        each[RELU](x, count)
    elif name == "silu":
        each[SILU](x, count)
    elif name == "tanh":
        each[TANH](x, count)
    else:
        raise Error("the activation " + name + " is unknown to this program")


def each[kind: Int](x: Floats, count: Int):
    var i = 0
    while i + WIDTH <= count:
        x.unsafe_store(i, activated[kind, WIDTH](x.unsafe_load[width=WIDTH](i)))
        i += WIDTH
    while i < count:
        x[unsafe_offset=i] = activated[kind, 1](x[unsafe_offset=i])
        i += 1


def activated[kind: Int, width: Int](v: SIMD[DType.float32, width]) -> SIMD[DType.float32, width]:
    comptime if kind == GELU:
        return 0.5 * v * (1 + erf(v * 0.70710678))
    elif kind == GELU_TANH:
        return 0.5 * v * (1 + tanh(0.7978845608 * (v + 0.044715 * v * v * v)))
    elif kind == QUICK_GELU:
        return v / (1 + exp(-1.702 * v))
    elif kind == RELU:
        return max(v, SIMD[DType.float32, width](0))
    elif kind == SILU:
        return v / (1 + exp(-v))
    else:
        return tanh(v)


def add(x: Floats, y: Floats, count: Int):
    for i in range(count):
        x[unsafe_offset=i] += y[unsafe_offset=i]


def attention(qkv: Floats, tokens: Int, heads: Int, head_dim: Int, to_self: Bool, y: Floats):
    """(tokens, 3, heads, head_dim) -> softmax(q · kᵀ) · v (tokens, heads, head_dim).

    to_self: whether a token attends to itself, too.
    """
    var inner = heads * head_dim

    def head(h: Int) {imm}:
        var scores = List[Float32](length=tokens, fill=0)
        for query in range(tokens):
            var q = qkv.unsafe_offset(query * 3 * inner + h * head_dim)
            var largest = LEAST
            for key in range(tokens):
                var k = qkv.unsafe_offset((key * 3 + 1) * inner + h * head_dim)
                var score = Float32(0)
                for d in range(head_dim):
                    score += q[unsafe_offset=d] * k[unsafe_offset=d]
                if key == query and not to_self:
                    score = LEAST
                scores[key] = score
                largest = max(largest, score)
            var total = Float32(0)
            for key in range(tokens):
                scores[key] = exp(scores[key] - largest)
                total += scores[key]
            var to = y.unsafe_offset(query * inner + h * head_dim)
            for d in range(head_dim):
                to[unsafe_offset=d] = 0
            for key in range(tokens):
                var v = qkv.unsafe_offset((key * 3 + 2) * inner + h * head_dim)
                var share = scores[key] / total
                for d in range(head_dim):
                    to[unsafe_offset=d] += share * v[unsafe_offset=d]

    parallelize(head, heads)
