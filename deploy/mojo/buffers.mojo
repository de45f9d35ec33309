"""Aligned memory, and the vectors that the registers of the processor hold."""

from std.sys import simd_width_of

comptime Numbers[type: DType] = MutPointer[Scalar[type], MutUntrackedOrigin]
comptime Floats = Numbers[DType.float32]
comptime WIDTH = simd_width_of[DType.float32]()
comptime Vector = SIMD[DType.float32, WIDTH]


struct Buffer(Copyable, Movable):
    """Bytes from a multiple of 64 on; a pointer into them is good for as long as this lives and does not grow."""

    var lines: List[SIMD[DType.uint8, 64]]

    def __init__(out self, bytes: Int = 0):
        """Zeros."""
        self.lines = List[SIMD[DType.uint8, 64]](length=(bytes + 63) // 64, fill=0)

    def reserve(mut self, bytes: Int):
        if len(self.lines) * 64 < bytes:
            self = Buffer(bytes)

    def at[type: DType](self) -> Numbers[type]:
        return Numbers[type](unsafe_from_address=Int(self.lines.unsafe_ptr()))

    def floats(self) -> Floats:
        return self.at[DType.float32]()


@always_inline
def sum_of_lanes(x: Vector) -> Float32:
    """In their order, as in the C++ program."""
    var result = Float32(0)
    comptime for i in range(WIDTH):
        result += x[i]
    return result


def parts(whole: Int, size: Int) -> Int:
    """How many parts of this size hold the whole."""
    return (whole + size - 1) // size
