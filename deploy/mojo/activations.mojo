"""The functions of each number that the native format names, by the formulas of the C++ program (kernels.inc).

The two programs shall give the same bits, because rounding to int8 makes a whole step of the last one. Where a product
is added to something, this is one operation in both, as the processor has it.
"""

from buffers import Vector, WIDTH
from std.memory import bitcast

comptime NONE = 0
comptime GELU = 1
comptime GELU_TANH = 2
comptime QUICK_GELU = 3
comptime RELU = 4
comptime SILU = 5
comptime TANH = 6


def activation_named(name: String) raises -> Int:
    """An activation of an MLP."""
    if name == "gelu":
        return GELU
    if name == "gelu_tanh":
        return GELU_TANH
    if name == "quick_gelu":
        return QUICK_GELU
    if name == "relu":
        return RELU
    if name == "silu":
        return SILU
    raise Error("the activation " + name + " is unknown to this program")


@no_inline
def activated(activation: Int, x: Vector) -> Vector:
    if activation == GELU:
        return gelu(x)
    if activation == GELU_TANH:
        return x * sigmoid(1.59576912 * (0.044715 * x * x).fma(x, x))
    if activation == QUICK_GELU:
        return x * sigmoid(1.702 * x)
    if activation == RELU:
        return max(x, Vector(0))
    if activation == SILU:
        return x * sigmoid(x)
    return 2 * sigmoid(2 * x) - 1


@always_inline
def gelu(x: Vector) -> Vector:
    var positive = erf_of_positive(abs(x) * 0.70710678)
    return 0.5 * x * (1 + x.lt(0).select(-positive, positive))


@always_inline
def erf_of_positive(x: Vector) -> Vector:
    """Of x >= 0, within 1.5e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26."""
    var t = 1 / x.fma(0.3275911, 1)
    var sum = Vector(1.061405429)
    comptime for factor in [-1.453152027, 1.421413741, -0.284496736, 0.254829592]:
        sum = sum.fma(t, Vector(factor))
    return (-(sum * t)).fma(exponential(-x * x), 1)


@always_inline
def sigmoid(x: Vector) -> Vector:
    return 1 / (1 + exponential(-x))


comptime ROUND = Float32(12582912)  # 1.5 · 2^23: what is added to it loses its fraction; ties to even


@always_inline
def exponential(x: Vector) -> Vector:
    """To 2 units in the last place: 2^n · exp(r), |r| <= ln(2) / 2, by the Taylor series up to r^7."""
    var limited = min(max(x, Vector(-87.3)), Vector(88))
    var n = limited.fma(1.44269504, Vector(ROUND)) - ROUND
    var r = n.fma(2.12194440e-4, n.fma(-0.693359375, limited))  # ln(2) in two parts
    var sum = Vector(1.0 / 5040)
    comptime for factor in [1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0]:
        sum = sum.fma(r, Vector(factor))
    return bitcast[DType.float32, WIDTH](bitcast[DType.int32, WIDTH](sum) + (n.cast[DType.int32]() << 23))
