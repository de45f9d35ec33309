"""Work in parts, dealt out to threads one after the other."""

from max.algorithm import parallelize
from std.atomic import Atomic


@fieldwise_init
struct Threads(ImplicitlyCopyable, Movable):
    var count: Int

    def run[Part: def(Int, Int) -> None](self, parts: Int, part: Part):
        """Call part(number, thread) for each number below `parts`; thread is less than `count`."""
        var next = Atomic[Int](0)

        def work(thread: Int) {imm part, imm parts, mut next}:
            var number = next.fetch_add(1)
            while number < parts:
                part(number, thread)
                number = next.fetch_add(1)

        var threads = min(self.count, parts)
        parallelize(work, threads, threads)
