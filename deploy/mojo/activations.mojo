"""The functions of each number that the native format names."""

from buffers import Floats, Vector
from std.math import erf, exp, tanh

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
        return 0.5 * x * (1 + erf(x * 0.70710678))
    if activation == GELU_TANH:
        return 0.5 * x * (1 + tanh(0.7978845608 * (x + 0.044715 * x * x * x)))
    if activation == QUICK_GELU:
        return x / (1 + exp(-1.702 * x))
    if activation == RELU:
        return max(x, Vector(0))
    if activation == SILU:
        return x / (1 + exp(-x))
    return tanh(x)
