"""Softmax attention: products of panels of keys and values, as in linear layers, in float32."""

from activations import NONE, exponential
from buffers import Buffer, Floats, Vector, WIDTH, parts, sum_of_lanes
from products import Epilogue, OfFloat32, PANEL, multiply
from threads import Threads

comptime QUERIES_AT_ONCE = 48
comptime COLUMNS = PANEL[OfFloat32]
comptime LEAST = Float32(-3.0e38)


struct Attention(Copyable, Movable):
    """softmax(q · kᵀ) · v of (tokens, 3, heads, head_dim) into (queries, heads, head_dim): of the first tokens."""

    var heads: Int
    var head_dim: Int
    var to_self: Bool  # whether a token attends to itself, too
    var packed: Buffer  # keys and values of each head
    var scores: Buffer  # of each thread, and the sum of each row
    var zeros: Buffer

    def __init__(out self, heads: Int, head_dim: Int, to_self: Bool):
        self.heads = heads
        self.head_dim = head_dim
        self.to_self = to_self
        self.packed = Buffer()
        self.scores = Buffer()
        self.zeros = Buffer(4 * COLUMNS)

    def run(mut self, qkv: Floats, tokens: Int, queries: Int, y: Floats, threads: Threads):
        var keys_size = parts(tokens, COLUMNS) * COLUMNS * self.head_dim
        var size = keys_size + parts(self.head_dim, COLUMNS) * COLUMNS * tokens
        self.packed.reserve(4 * size * self.heads)
        self.scores.reserve(4 * QUERIES_AT_ONCE * (tokens + 1) * threads.count)
        var packed = self.packed.floats()
        var scores = self.scores.floats()
        var width = self.heads * self.head_dim
        var head_dim = self.head_dim

        def pack_head(head: Int, _thread: Int) {imm}:
            var rows = qkv.unsafe_offset(width + head * head_dim)
            var keys = packed.unsafe_offset(head * size)
            pack(rows, tokens, head_dim, 3 * width, keys, keys.unsafe_offset(keys_size))

        threads.run(self.heads, pack_head)
        var blocks = parts(queries, QUERIES_AT_ONCE)
        var to_self = self.to_self or tokens == 1
        var zeros = self.zeros.floats()

        def answer_block(number: Int, thread: Int) {imm}:
            var first = number % blocks * QUERIES_AT_ONCE
            var start = number // blocks * head_dim
            var keys = packed.unsafe_offset(number // blocks * size)
            answer(
                qkv.unsafe_offset(first * 3 * width + start), min(QUERIES_AT_ONCE, queries - first), first,
                tokens, head_dim, width, to_self, keys, keys.unsafe_offset(keys_size),
                scores.unsafe_offset(QUERIES_AT_ONCE * (tokens + 1) * thread), zeros,
                y.unsafe_offset(first * width + start),
            )

        threads.run(self.heads * blocks, answer_block)


def pack(rows: Floats, tokens: Int, head_dim: Int, stride: Int, keys: Floats, values: Floats):
    """Keys into panels of tokens, (head_dim, COLUMNS) each, and values into panels of columns, (tokens, COLUMNS) each.

    What lies beyond the last token or column is not used: the columns of a product do not depend on each other.
    """
    for token in range(tokens):
        var key = rows.unsafe_offset(token * stride)
        var value = key.unsafe_offset(stride // 3)
        var to = keys.unsafe_offset(token // COLUMNS * COLUMNS * head_dim + token % COLUMNS)
        for d in range(head_dim):
            to[unsafe_offset=d * COLUMNS] = key[unsafe_offset=d]
            values[unsafe_offset=(d // COLUMNS * tokens + token) * COLUMNS + d % COLUMNS] = value[unsafe_offset=d]


def answer(
    q: Floats, queries: Int, first: Int, tokens: Int, head_dim: Int, width: Int, to_self: Bool,
    keys: Floats, values: Floats, scores: Floats, zeros: Floats, y: Floats,
):
    """Some queries of one head, of which `first` is the number of the first."""
    var plain = Epilogue(zeros, zeros, zeros, NONE, False)
    for token in range(0, tokens, COLUMNS):
        multiply[OfFloat32](
            q, 3 * width, queries, keys.unsafe_offset(token * head_dim), head_dim, min(COLUMNS, tokens - token),
            scores.unsafe_offset(token), tokens, plain,
        )
    var totals = scores.unsafe_offset(QUERIES_AT_ONCE * tokens)
    for query in range(queries):
        var row = scores.unsafe_offset(query * tokens)
        totals[unsafe_offset=query] = exponentials(row, tokens, -1 if to_self else first + query)
    for d in range(0, head_dim, COLUMNS):
        multiply[OfFloat32](
            scores, tokens, queries, values.unsafe_offset(d * tokens), tokens, min(COLUMNS, head_dim - d),
            y.unsafe_offset(d), width, plain,
        )
    for query in range(queries):
        for d in range(head_dim):
            y[unsafe_offset=query * width + d] /= totals[unsafe_offset=query]


def exponentials(row: Floats, count: Int, without: Int) -> Float32:
    """exp(row - its largest number) in place, 0 at `without` if this is not negative; returns the sum."""
    if without >= 0:
        row[unsafe_offset=without] = LEAST
    var largest = row[unsafe_offset=0]
    for i in range(count):
        largest = max(largest, row[unsafe_offset=i])
    var totals = Vector(0)
    var i = 0
    while i + WIDTH <= count:
        var power = exponential(row.unsafe_load[width=WIDTH](i) - largest)
        row.unsafe_store(i, power)
        totals += power
        i += WIDTH
    var rest = Float32(0)
    for j in range(i, count):
        row[unsafe_offset=j] = exponential(Vector(row[unsafe_offset=j] - largest))[0]
        rest += row[unsafe_offset=j]
    if without >= 0:
        row[unsafe_offset=without] = 0  # the smallest power that is computed is not 0
    return sum_of_lanes(totals) + rest
