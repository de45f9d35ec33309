"""Products of rows by panels of weights. A tile of sums is kept in the registers of the processor.

A panel holds some columns of weightᵀ in the order (units, columns, numbers of a unit). A unit is one number of F32, and
two numbers, one below the other, of BF16 and I8. Weights are kept in their own type and widened in the inner loop.
"""

from activations import NONE, activated
from buffers import Floats, Numbers, Vector, WIDTH
from std.memory import bitcast
from std.sys import CompilationTarget, llvm_intrinsic

comptime Ints = SIMD[DType.int32, WIDTH]
comptime Pairs = SIMD[DType.int16, 2 * WIDTH]


trait Product:
    """How weights of one type are multiplied. A tile of sums and its factors fit 16 registers, or 32 of AVX-512."""

    comptime weight: DType
    comptime unit: Int  # numbers in a unit
    comptime left: DType  # of the rows of x
    comptime steps: Int  # numbers of a row of x that belong to a unit
    comptime sum: DType
    comptime rows: Int  # of a tile
    comptime vectors: Int  # of a row of a tile

    @staticmethod
    def added[
        step: Int
    ](sums: SIMD[Self.sum, WIDTH], left: SIMD[Self.left, WIDTH], right: Numbers[Self.weight]) -> SIMD[Self.sum, WIDTH]:
        """The sums of WIDTH columns with the products of one number of x and their units from `right` on."""
        ...


struct OfFloat32(Product):
    comptime weight = DType.float32
    comptime unit = 1
    comptime left = DType.float32
    comptime steps = 1
    comptime sum = DType.float32
    comptime rows = 8 if WIDTH == 16 else 4
    comptime vectors = 3

    @staticmethod
    @always_inline
    def added[step: Int](sums: Vector, left: Vector, right: Floats) -> Vector:
        return left.fma(right.unsafe_load[width=WIDTH](0), sums)


struct OfBFloat16(Product):
    """Rows of x are rounded to bfloat16 and kept as float32."""

    comptime weight = DType.bfloat16
    comptime unit = 2
    comptime left = DType.float32
    comptime steps = 2
    comptime sum = DType.float32
    comptime rows = 5
    comptime vectors = 2

    @staticmethod
    @always_inline
    def added[step: Int](sums: Vector, left: Vector, right: Numbers[DType.bfloat16]) -> Vector:
        var pairs = bitcast[DType.uint32, WIDTH](right.unsafe_load[width=2 * WIDTH](0))
        var bits = pairs << 16 if step == 0 else pairs & 0xFFFF0000
        return left.fma(bitcast[DType.float32, WIDTH](bits), sums)


struct OfInt8(Product):
    """Rows of x are pairs of int16, each seen as an int32. The sums are exact."""

    comptime weight = DType.int8
    comptime unit = 2
    comptime left = DType.int32
    comptime steps = 1
    comptime sum = DType.int32
    comptime rows = 6
    comptime vectors = 2

    @staticmethod
    @always_inline
    def added[step: Int](sums: Ints, left: Ints, right: Numbers[DType.int8]) -> Ints:
        var wide = right.unsafe_load[width=2 * WIDTH](0).cast[DType.int16]()
        return sums + sums_of_pairs(bitcast[DType.int16, 2 * WIDTH](left), wide)


@always_inline
def sums_of_pairs(a: Pairs, b: Pairs) -> Ints:
    """The sums of the products of neighbors."""
    comptime if CompilationTarget.has_avx2() and WIDTH == 8:
        return llvm_intrinsic["llvm.x86.avx2.pmadd.wd", Ints, has_side_effect=False](a, b)
    else:
        var x = bitcast[DType.int32, WIDTH](a)
        var y = bitcast[DType.int32, WIDTH](b)
        return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16)


comptime PANEL[P: Product] = P.vectors * WIDTH


@fieldwise_init
struct Epilogue(ImplicitlyCopyable, Movable):
    """What becomes of sums: activation(sum + bias), or of int8 activation(sum · row_scale · scale + bias)."""

    var bias: Floats  # of each column
    var scale: Floats  # of each column
    var row_scale: Floats
    var activation: Int
    var adds: Bool  # to what is there


def multiply[
    P: Product
](
    x: Numbers[P.left], stride: Int, rows: Int, panel: Numbers[P.weight], units: Int, columns: Int,
    y: Floats, width: Int, to: Epilogue,
):
    """Rows of x, `stride` apart, times a panel, into `columns` columns of y, whose rows are `width` apart."""
    var row = 0
    comptime for count in [P.rows, 2, 1]:
        while row + count <= rows:
            var sums = tile[P, count](x.unsafe_offset(row * stride), stride, panel, units)
            comptime for r in range(count):
                comptime for v in range(P.vectors):
                    if v * WIDTH < columns:
                        var value = finished(sums[r * P.vectors + v], row + r, v * WIDTH, to)
                        store(y.unsafe_offset((row + r) * width + v * WIDTH), value, columns - v * WIDTH, to.adds)
            row += count


@always_inline
def tile[
    P: Product, rows: Int
](x: Numbers[P.left], stride: Int, panel: Numbers[P.weight], units: Int) -> Array[SIMD[P.sum, WIDTH], rows * P.vectors]:
    comptime numbers = WIDTH * P.unit
    var sums = Array[SIMD[P.sum, WIDTH], rows * P.vectors](fill=SIMD[P.sum, WIDTH](0))
    for unit in range(units):
        var line = panel.unsafe_offset(unit * P.vectors * numbers)
        comptime for step in range(P.steps):
            comptime for r in range(rows):
                var left = SIMD[P.left, WIDTH](x[unsafe_offset=r * stride + unit * P.steps + step])
                comptime for v in range(P.vectors):
                    comptime i = r * P.vectors + v
                    sums[i] = P.added[step](sums[i], left, line.unsafe_offset(v * numbers))
    return sums^


@always_inline
def finished[sum: DType](sums: SIMD[sum, WIDTH], row: Int, column: Int, to: Epilogue) -> Vector:
    var value = sums.cast[DType.float32]()
    var bias = to.bias.unsafe_load[width=WIDTH](column)
    comptime if sum == DType.int32:
        var scale = to.scale.unsafe_load[width=WIDTH](column)
        value = (value * to.row_scale[unsafe_offset=row]).fma(scale, bias)
    else:
        value += bias
    return value if to.activation == NONE else activated(to.activation, value)


@always_inline
def store(y: Floats, value: Vector, columns: Int, adds: Bool):
    """The first `columns` numbers, at most WIDTH."""
    if columns >= WIDTH:
        y.unsafe_store(0, y.unsafe_load[width=WIDTH](0) + value if adds else value)
        return
    for i in range(columns):
        y[unsafe_offset=i] = y[unsafe_offset=i] + value[i] if adds else value[i]
